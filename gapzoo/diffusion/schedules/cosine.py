"""The cosine schedule (Nichol & Dhariwal 2021, arXiv 2102.09672), variance preserving.

``alpha = cos(theta)``, ``sigma = sin(theta)`` with the angle theta linear in t; it ends where
``tan(theta) = sigma_max``, so that alpha stays positive and ``x_t / alpha`` is defined.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from gapzoo.diffusion.schedules import SCHEDULES
from gapzoo.diffusion.schedules.base import Schedule, check_sigmas


@SCHEDULES.register("cosine")
@dataclass(frozen=True)
class CosineSchedule(Schedule):
    """Variance-preserving schedule.

    Args:
        sigma_max: noise-to-signal ratio at time 1.
    """

    sigma_max: float = 80.0

    def __post_init__(self) -> None:
        check_sigmas("cosine", self.sigma_max)

    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """(cos theta, sin theta), each shaped as ``t``."""
        theta = t * math.atan(self.sigma_max)
        return torch.cos(theta), torch.sin(theta)

    def t_of_sigma(self, sigma: Tensor) -> Tensor:
        """``atan(sigma) / atan(sigma_max)``."""
        return torch.atan(sigma) / math.atan(self.sigma_max)
