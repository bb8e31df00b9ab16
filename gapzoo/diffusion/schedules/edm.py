"""The EDM schedule (Karras et al. 2022, arXiv 2206.00364, equation 5): variance exploding.

alpha is 1. Above the small time FOOT, ``sigma^(1/rho)`` is linear in t from ``sigma_min`` to
``sigma_max``; below it sigma is linear down to 0 at t = 0. ``times(N)`` is thus the N levels of the
paper followed by 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gapzoo.core import GapzooError
from gapzoo.diffusion.schedules import SCHEDULES
from gapzoo.diffusion.schedules.base import Schedule, check_grid, check_sigmas

FOOT = 1e-3
"""The time at which sigma is sigma_min."""


@SCHEDULES.register("edm")
@dataclass(frozen=True)
class EDMSchedule(Schedule):
    """Variance-exploding schedule warped by ``rho``.

    Args:
        sigma_min: lowest noise level that the network is asked about.
        sigma_max: noise level at time 1.
        rho: warp; larger spends more steps at low noise.

    Raises:
        GapzooError: where the levels are not 0 < sigma_min < sigma_max, or rho is not positive.
    """

    sigma_min: float = 0.002
    sigma_max: float = 80.0
    rho: float = 7.0

    def __post_init__(self) -> None:
        check_sigmas("edm", self.sigma_min, self.sigma_max)
        if self.rho <= 0:
            raise GapzooError(f"schedule 'edm': rho is {self.rho:g}; it must be positive")

    @property
    def _roots(self) -> tuple[float, float]:
        return self.sigma_min ** (1 / self.rho), self.sigma_max ** (1 / self.rho)

    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """(1, sigma), each shaped as ``t``."""
        low, high = self._roots
        part = ((t - FOOT) / (1 - FOOT)).clamp(min=0)
        warped = (low + part * (high - low)) ** self.rho
        return torch.ones_like(t), torch.where(t < FOOT, self.sigma_min / FOOT * t, warped)

    def t_of_sigma(self, sigma: Tensor) -> Tensor:
        """Inverse of the warp, shaped as ``sigma``."""
        low, high = self._roots
        part = (sigma ** (1 / self.rho) - low) / (high - low)
        foot = FOOT / self.sigma_min * sigma
        return torch.where(sigma < self.sigma_min, foot, FOOT + (1 - FOOT) * part)

    def times(self, steps: int, start: float = 1.0) -> Tensor:
        """``steps`` levels evenly warped from ``start`` to sigma_min, then 0: (steps + 1,)."""
        check_grid(steps, start)
        levels = torch.linspace(start, min(FOOT, start), steps, dtype=torch.float64)
        return torch.cat([levels, levels.new_zeros(1)])
