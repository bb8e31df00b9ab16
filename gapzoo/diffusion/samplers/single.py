"""One evaluation, weighed: see :mod:`gapzoo.diffusion.single`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gapzoo.core import GapzooError, MemberGenerator
from gapzoo.diffusion.denoiser import Denoiser
from gapzoo.diffusion.samplers import SAMPLERS
from gapzoo.diffusion.samplers.base import Progress
from gapzoo.diffusion.samplers.exponential import ExponentialSampler, kept, wiener
from gapzoo.diffusion.single import RATIO, SingleWeights


@SAMPLERS.register("single")
class SingleSampler(ExponentialSampler):
    """One evaluation at the noise-to-signal ratio ``RATIO``, straight to the state.

    Args:
        denoiser, progress: see Sampler.
        steps: 1.
        weights: c, a and b, measured; without them one step of ``exponential``.

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
        x, x_hat, _, r = self.predict(x_t, t, **cond)
        mean, weights = self.reference.mean.to(x).expand_as(x), self.weights
        known = self.reference.filter(mean, lambda variance: weights(variance)[0])
        apart = self.reference.filter(x - mean, lambda c, level: _left(c, level, weights), r)
        told = self.reference.filter(x_hat - mean, lambda variance: weights(variance)[2])
        return self.denoiser.schedule(s)[0].to(x) * (known + apart + told)


def _left(variance: Tensor, r: Tensor, weights: SingleWeights) -> Tensor:
    """What is left of d: a k, less b W that comes back with the denoised mean."""
    _, a, b = weights(variance)
    return a * kept(variance, r, torch.zeros_like(r)) - b * wiener(variance, r)
