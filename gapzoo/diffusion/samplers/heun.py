"""Heun's second-order step (Karras et al. 2022, arXiv 2206.00364, algorithm 1).

    d_t = (x_t - x_hat_t) / r_t,   x' = x_hat + r_s d_t,   d' = (x' - x_hat_s) / r_s
    x_s = x_t + (r_s - r_t) (d_t + d') / 2           (rescaled states)

The step to time 0 is Euler's.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from gapzoo.core import MemberGenerator
from gapzoo.diffusion.samplers import SAMPLERS
from gapzoo.diffusion.samplers.base import Sampler


@SAMPLERS.register("heun")
class HeunSampler(Sampler):
    """Two network evaluations a step (one in the last), order 2."""

    def step(
        self, x_t: Tensor, t: Tensor, s: Tensor, generator: MemberGenerator, **cond: Any
    ) -> Tensor:
        """Heun from ``t`` to ``s``; x_t (B,C,H,W)."""
        x, x_hat, _, r_t = self.predict(x_t, t, **cond)
        alpha_s, sigma_s = self.denoiser.schedule(s)
        r_s = sigma_s / alpha_s
        d_t = (x - x_hat) / r_t
        x_s = x_hat + r_s * d_t
        if r_s > 0:
            x_hat = self.denoiser(alpha_s * x_s, s, **cond).mean
            x_s = x + (r_s - r_t) * (d_t + (x_s - x_hat) / r_s) / 2
        return alpha_s * x_s
