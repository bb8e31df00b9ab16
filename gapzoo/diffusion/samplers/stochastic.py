"""Churn: add a little noise before each step, so that the step also corrects earlier errors.

Karras et al. 2022 (arXiv 2206.00364, algorithm 2): with gamma = min(churn / N, sqrt(2) - 1) where
the noise-to-signal ratio r is within ``low..high``, else 0,

    r' = (1 + gamma) r,   x' = x + noise sqrt(r'^2 - r^2) z        (rescaled states)

and then a deterministic step from r' to r_s.
"""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from gapzoo.core import GapzooError, MemberGenerator
from gapzoo.diffusion.denoiser import Denoiser
from gapzoo.diffusion.samplers import SAMPLERS
from gapzoo.diffusion.samplers.base import Progress, Sampler
from gapzoo.diffusion.samplers.dpmpp import DPMpp2SSampler
from gapzoo.diffusion.samplers.heun import HeunSampler


class Churn(Sampler):
    """Mixin: noise first, then the step of the class that follows in the bases.

    Args:
        denoiser: the prior or posterior.
        steps: how many steps from noise to state.
        progress: called with (steps done, steps).
        churn: strength of the noise over the whole run.
        low: lowest ratio at which noise is added.
        high: highest ratio at which noise is added.
        noise: standard deviation of z; a little above 1 makes up for a denoiser's lost variance.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        steps: int = 32,
        progress: Progress | None = None,
        churn: float = 10.0,
        low: float = 0.05,
        high: float = 50.0,
        noise: float = 1.0,
    ) -> None:
        super().__init__(denoiser, steps, progress)
        if churn < 0 or noise <= 0 or not 0 <= low < high:
            raise GapzooError(f"churn {churn:g}, noise {noise:g}, {low:g}..{high:g}: out of range")
        self.gamma = min(churn / steps, math.sqrt(2) - 1)
        self.low, self.high, self.noise = low, high, noise

    def step(
        self, x_t: Tensor, t: Tensor, s: Tensor, generator: MemberGenerator, **cond: Any
    ) -> Tensor:
        """Raise the noise of x_t (B,C,H,W), then step from there to ``s``."""
        schedule = self.denoiser.schedule
        r = schedule.ratio(t)
        if self.gamma > 0 and self.low <= r <= self.high:
            extra = self.noise * r * math.sqrt((1 + self.gamma) ** 2 - 1)
            x = x_t / schedule(t)[0] + extra * generator.randn(x_t.shape).to(x_t)
            t = schedule.t_of_sigma(r * (1 + self.gamma))
            x_t = schedule(t)[0] * x
        return super().step(x_t, t, s, generator, **cond)  # type: ignore[safe-super]


@SAMPLERS.register("stochastic")
class StochasticSampler(Churn, HeunSampler):
    """Churn and Heun: the stochastic sampler of EDM."""


@SAMPLERS.register("dpmpp_stochastic")
class StochasticDPMppSampler(Churn, DPMpp2SSampler):
    """Churn and DPM-Solver++ 2S: GenCast's sampler (Price et al. 2024)."""
