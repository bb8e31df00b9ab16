"""Euler's first-order step for the probability-flow equation; the same as DDIM with eta 0.

x_s = x_hat + (r_s / r_t) (x_t - x_hat)          (rescaled states)
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from gapzoo.core import MemberGenerator
from gapzoo.diffusion.samplers import SAMPLERS
from gapzoo.diffusion.samplers.base import Sampler


@SAMPLERS.register("euler")
class EulerSampler(Sampler):
    """One network evaluation a step, order 1 (Song et al. 2021, arXiv 2010.02502)."""

    def step(
        self, x_t: Tensor, t: Tensor, s: Tensor, generator: MemberGenerator, **cond: Any
    ) -> Tensor:
        """Euler from ``t`` to ``s``; x_t (B,C,H,W)."""
        x, x_hat, _, r_t = self.predict(x_t, t, **cond)
        alpha_s, sigma_s = self.denoiser.schedule(s)
        return alpha_s * (x_hat + sigma_s / alpha_s / r_t * (x - x_hat))
