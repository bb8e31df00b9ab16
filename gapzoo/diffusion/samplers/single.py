"""One evaluation, weighed: see :mod:`gapzoo.diffusion.single`."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from gapzoo.core import GapzooError, MemberGenerator
from gapzoo.diffusion.denoiser import Denoiser
from gapzoo.diffusion.samplers import SAMPLERS
from gapzoo.diffusion.samplers.base import Progress
from gapzoo.diffusion.samplers.exponential import ExponentialSampler, wiener
from gapzoo.diffusion.single import RATIO, SingleWeights


@SAMPLERS.register("single")
class SingleSampler(ExponentialSampler):
    """One evaluation at the noise-to-signal ratio ``RATIO``, straight to the state.

    Args:
        denoiser, progress: see Sampler.
        steps: 1.
        weights: c, a, b and s, measured; without them one step of ``exponential``.

    Raises:
        GapzooError: for more steps; for a denoiser that ``exponential`` refuses too.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        steps: int = 1,
        progress: Progress | None = None,
        weights: SingleWeights | None = None,
    ) -> None:
        if steps != 1:
            raise GapzooError(f"sampler 'single' with {steps} steps; it takes 1, or 'exponential'")
        super().__init__(denoiser, steps, progress, highest=RATIO)
        self.weights = weights

    def evaluated(self, x_t: Tensor, t: Tensor, **cond: Any) -> tuple[Tensor, Tensor]:
        """d and e of a noisy state (B,C,H,W) at ``t`` ()."""
        x, x_hat, _, r = self.predict(x_t, t, **cond)
        apart = x - self.reference.mean.to(x)
        return apart, x_hat - self.reference.mean.to(x) - self.reference.filter(apart, wiener, r)

    def step(
        self, x_t: Tensor, t: Tensor, s: Tensor, generator: MemberGenerator, **cond: Any
    ) -> Tensor:
        """From ``t`` to ``s``; x_t (B,C,H,W)."""
        if self.weights is None or s > 0:
            return super().step(x_t, t, s, generator, **cond)
        (apart, unknown), covariance = self.evaluated(x_t, t, **cond), self.reference.covariance
        mean = self.reference.mean.to(apart).expand_as(apart)
        drawn = self.weights.drawn(apart, covariance)
        told = self.weights.told(mean, unknown, covariance)
        return self.denoiser.schedule(s)[0].to(apart) * (told + drawn)
