"""DPM-Solver++ (Lu et al. 2022, arXiv 2211.01095), algorithms 1 (2S) and 2 (2M).

In the rescaled state and with ``lambda = -log r`` the probability flow is solved exactly for a
constant x_hat:

    x_s = (r_s / r_t) x_t + (1 - r_s / r_t) x_hat

2S evaluates x_hat at the middle of the step, at ``r_m = sqrt(r_t r_s)``; 2M extrapolates it from
the last two. The step to time 0 is the denoised mean.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from gapzoo.core import MemberGenerator
from gapzoo.diffusion.denoiser import Denoiser
from gapzoo.diffusion.samplers import SAMPLERS
from gapzoo.diffusion.samplers.base import Progress, Sampler


@SAMPLERS.register("dpmpp")
class DPMpp2SSampler(Sampler):
    """Single-step, two evaluations a step (one in the last), order 2; what GenCast uses."""

    def step(
        self, x_t: Tensor, t: Tensor, s: Tensor, generator: MemberGenerator, **cond: Any
    ) -> Tensor:
        """DPM-Solver++ 2S from ``t`` to ``s``; x_t (B,C,H,W)."""
        x, x_hat, _, r_t = self.predict(x_t, t, **cond)
        alpha_s, sigma_s = self.denoiser.schedule(s)
        r_s = sigma_s / alpha_s
        if r_s > 0:
            m = self.denoiser.schedule.t_of_sigma((r_t * r_s).sqrt())
            alpha_m, sigma_m = self.denoiser.schedule(m)
            x_m = x_hat + sigma_m / alpha_m / r_t * (x - x_hat)
            x_hat = self.denoiser(alpha_m * x_m, m, **cond).mean
        return alpha_s * (x_hat + r_s / r_t * (x - x_hat))


@SAMPLERS.register("dpmpp_2m")
class DPMpp2MSampler(Sampler):
    """Multi-step, one evaluation a step, order 2."""

    def __init__(
        self, denoiser: Denoiser, steps: int = 32, progress: Progress | None = None
    ) -> None:
        super().__init__(denoiser, steps, progress)
        self._last: tuple[Tensor, Tensor, Tensor] | None = None

    def step(
        self, x_t: Tensor, t: Tensor, s: Tensor, generator: MemberGenerator, **cond: Any
    ) -> Tensor:
        """DPM-Solver++ 2M from ``t`` to ``s``; x_t (B,C,H,W)."""
        x, x_hat, _, r_t = self.predict(x_t, t, **cond)
        alpha_s, sigma_s = self.denoiser.schedule(s)
        r_s, guess = sigma_s / alpha_s, x_hat
        if self._last is not None and self._last[0] == t and r_s > 0:
            _, r_u, before = self._last
            share = (r_t / r_s).log() / (r_u / r_t).log() / 2
            guess = x_hat + share * (x_hat - before)
        self._last = (s, r_t, x_hat) if s > 0 else None
        return alpha_s * (guess + r_s / r_t * (x - guess))
