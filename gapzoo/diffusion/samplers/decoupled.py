"""Decoupled annealing: a clean state at every noise level, noised anew for the next.

    x ~ p(x | x_t, y),      x_s = alpha_s x + sigma_s z

(DAPS: Zhang et al. 2024, arXiv 2407.01521), where the conditional is drawn as the Gaussian around
the denoised mean (``Denoiser.draw``). Exact for a Gaussian prior and linear observations in any
number of steps; elsewhere the levels below which steps are dense enough matter, since what a step
takes for Gaussian is of the size of its noise level. Each step forgets the errors of those before
but for what its noise leaves of them, and costs what a step of the others costs.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gapzoo.core import GapzooError, MemberGenerator
from gapzoo.diffusion.denoiser import Denoiser
from gapzoo.diffusion.samplers import SAMPLERS
from gapzoo.diffusion.samplers.base import Progress, Sampler


@SAMPLERS.register("decoupled")
class DecoupledSampler(Sampler):
    """One evaluation a step.

    Args:
        denoiser, steps, progress: see Sampler.
        highest: noise-to-signal ratio of the second step; the first, at the schedule's highest,
            takes all above for Gaussian. Evenly spaced from the schedule's highest where None.

    Raises:
        GapzooError: for ``highest`` beyond the schedule's levels or with a single step.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        steps: int = 8,
        progress: Progress | None = None,
        highest: float | None = None,
    ) -> None:
        super().__init__(denoiser, steps, progress)
        self.highest = None if highest is None else self._time(highest)

    def _time(self, highest: float) -> float:
        t = float(self.denoiser.schedule.t_of_sigma(torch.tensor(highest, dtype=torch.float64)))
        if not 0 < t < 1 or self.steps < 2:
            raise GapzooError(
                f"'highest' {highest:g} with {self.steps} steps; give one below the schedule's "
                "highest noise level, and 2 steps or more"
            )
        return t

    def carry(self, x_t: Tensor, times: Tensor, generator: MemberGenerator, **cond: Any) -> Tensor:
        """From the noisy state (B,C,H,W) at the first of the times (steps + 1,) to the last."""
        if self.highest is not None and times[0] > self.highest:
            rest = self.denoiser.schedule.times(self.steps - 1, self.highest)
            times = torch.cat([times[:1], rest.to(times)])
        return super().carry(x_t, times, generator, **cond)

    def step(
        self, x_t: Tensor, t: Tensor, s: Tensor, generator: MemberGenerator, **cond: Any
    ) -> Tensor:
        """From ``t`` to ``s``; x_t (B,C,H,W)."""
        x = self.denoiser.draw(x_t, t, generator, **cond)
        alpha, sigma = (scale.to(x) for scale in self.denoiser.schedule(s))
        return alpha * x + sigma * generator.randn(x.shape).to(x) if s > 0 else x
