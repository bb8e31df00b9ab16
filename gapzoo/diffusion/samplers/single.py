"""One evaluation, weighed: see :mod:`gapzoo.diffusion.single`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from gapzoo.core import GapzooError, MemberGenerator
from gapzoo.diffusion.denoiser import Denoiser
from gapzoo.diffusion.once import Once
from gapzoo.diffusion.samplers import SAMPLERS
from gapzoo.diffusion.samplers.base import Progress
from gapzoo.diffusion.samplers.exponential import ExponentialSampler, kept, pushed, wiener
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
        self.at_once = denoiser.at_once()
        super().__init__(denoiser, steps, progress, highest=RATIO)
        self.weights = weights

    def _require(self, highest: float | None) -> None:
        """Nothing to refuse where all is a gain on modes."""
        if self.at_once is None or highest is None:
            super()._require(highest)
        else:
            self.start = self._time(highest)

    @torch.no_grad()
    def __call__(
        self,
        x_init: Tensor | None = None,
        *,
        generator: MemberGenerator,
        shape: Sequence[int] | None = None,
        start: float | None = None,
        **cond: Any,
    ) -> Tensor:
        """See Sampler; all in modes where the denoiser can (:mod:`gapzoo.diffusion.once`)."""
        here = x_init is not None or start is not None or self.denoiser.start is not None
        whole = shape is not None and (len(shape) == 3 or shape[0] == len(generator))
        if self.at_once is None or here or cond or not whole or shape is None:
            return super().__call__(x_init, generator=generator, shape=shape, start=start, **cond)
        noise = generator.mixed((len(generator), *shape[-3:]))
        state = self._told(self.at_once(noise, RATIO))
        if self.progress is not None:
            self.progress(1, 1)
        return self.denoiser.finish(state)

    def _told(self, once: Once) -> Tensor:
        """The state (B,C,H,W)."""
        if self.weights is not None:
            return self.weights.state(once)
        r, s = (torch.tensor(v).to(once.variance) for v in (RATIO, 0.0))
        drawn = once.apart.times(kept(once.variance, r, s))
        return (once.mean + drawn + once.unknown.times(pushed(once.variance, r, s, r))).grid()

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
