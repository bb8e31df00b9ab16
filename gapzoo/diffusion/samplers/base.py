"""Samplers: the loop over times that all of them share.

A sampler carries x_t from one time t to the next, s < t, until the clean state at time 0. The
deterministic ones integrate the probability-flow equation in the rescaled state ``x = x_t / alpha``
and the noise-to-signal ratio ``r = sigma / alpha``:

    dx/dr = (x - x_hat(x, r)) / r

At s = 0, where r = 0, an Euler step is exactly the denoised mean.
"""

from __future__ import annotations

import abc
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from gapzoo.core import GapzooError, MemberGenerator
from gapzoo.diffusion.denoiser import Denoiser

Progress = Callable[[int, int], None]


class Sampler(abc.ABC):
    """Draws states from a denoiser. A subclass overrides ``step`` alone.

    Args:
        denoiser: the prior, or a posterior: guided denoisers are denoisers.
        steps: how many steps from noise to state.
        progress: called with (steps done, steps) after each step.
    """

    def __init__(
        self, denoiser: Denoiser, steps: int = 32, progress: Progress | None = None
    ) -> None:
        if steps < 1:
            raise GapzooError(f"steps is {steps}; a sampler takes at least 1")
        self.denoiser, self.steps, self.progress = denoiser, steps, progress
        self.start = 1.0

    @abc.abstractmethod
    def step(
        self, x_t: Tensor, t: Tensor, s: Tensor, generator: MemberGenerator, **cond: Any
    ) -> Tensor:
        """Carry ``x_t`` (B,C,H,W) from time ``t`` () to ``s`` () < t; s may be 0."""

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
        """Draw one state a member of the generator: (B,C,H,W).

        Args:
            x_init: (B or 1,C,H,W) clean state, re-noised to ``start``; None starts from noise, or
                from the denoiser's own ``start`` where it has one.
            generator: one random stream a member.
            shape: (B,C,H,W) or (C,H,W), needed where there is no state to start from.
            start: time in (0, 1] to start at, but for a denoiser's own start; the sampler's own
                where None.
            cond: conditioning handed to the denoiser, such as ``cond=``.

        Raises:
            GapzooError: where there is neither state nor shape, or members and shape disagree.
        """
        start = self.start if start is None else start
        if x_init is None and self.denoiser.start is not None:
            x_init, start = self.denoiser.start
        times = self.denoiser.schedule.times(self.steps, start)
        x_t = self._begin(x_init, shape, times[0], generator)
        return self.denoiser.finish(self.carry(x_t, times, generator, **cond))

    def carry(self, x_t: Tensor, times: Tensor, generator: MemberGenerator, **cond: Any) -> Tensor:
        """From the noisy state (B,C,H,W) at the first of the times (steps + 1,) to the last."""
        for i, (t, s) in enumerate(itertools.pairwise(times.to(x_t))):
            x_t = self.step(x_t, t, s, generator, **cond)
            if self.progress is not None:
                self.progress(i + 1, self.steps)
        return x_t

    def _begin(
        self,
        x_init: Tensor | None,
        shape: Sequence[int] | None,
        t: Tensor,
        generator: MemberGenerator,
    ) -> Tensor:
        """``alpha x + sigma z`` at the first time."""
        if x_init is None and shape is None:
            raise GapzooError("nothing to start from; give shape=(B,C,H,W) or x_init")
        full = tuple(x_init.shape if x_init is not None else shape or ())
        if len(full) == 3:
            full = (len(generator), *full)
        if x_init is not None and full[0] == 1:
            full = (len(generator), *full[1:])
        if len(full) != 4 or full[0] != len(generator):
            raise GapzooError(
                f"states {full} for {len(generator)} members; the first size must be the members"
            )
        noise = generator.randn(full)
        if x_init is None:
            return self.begin(noise, t)
        alpha, sigma = (scale.to(noise) for scale in self.denoiser.schedule(t))
        return alpha * x_init.to(noise) + sigma * noise

    def begin(self, noise: Tensor, t: Tensor) -> Tensor:
        """Where sampling starts without a state, from standard noise (B,C,H,W)."""
        return self.denoiser.begin(noise, t)

    def predict(self, x_t: Tensor, t: Tensor, **cond: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Rescaled state x, denoised mean x_hat (both (B,C,H,W)), alpha () and ratio r ()."""
        alpha, sigma = self.denoiser.schedule(t)
        return x_t / alpha, self.denoiser(x_t, t, **cond).mean, alpha, sigma / alpha
