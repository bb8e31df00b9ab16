"""The straight path of flow matching (Lipman et al. 2023, arXiv 2210.02747; rectified flow).

``alpha = 1 - u``, ``sigma = u`` with ``u = t sigma_max / (1 + sigma_max)``: the path stops a little
short of pure noise, where the noise-to-signal ratio is sigma_max.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from gapzoo.diffusion.schedules import SCHEDULES
from gapzoo.diffusion.schedules.base import Schedule, check_sigmas


@SCHEDULES.register("flow")
@dataclass(frozen=True)
class FlowSchedule(Schedule):
    """Linear interpolation between state and noise.

    Args:
        sigma_max: noise-to-signal ratio at time 1.
    """

    sigma_max: float = 80.0

    def __post_init__(self) -> None:
        check_sigmas("flow", self.sigma_max)

    @property
    def _end(self) -> float:
        return self.sigma_max / (1 + self.sigma_max)

    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """(1 - u, u), each shaped as ``t``."""
        u = t * self._end
        return 1 - u, u

    def t_of_sigma(self, sigma: Tensor) -> Tensor:
        """``u = sigma / (1 + sigma)``, scaled to time."""
        return sigma / (1 + sigma) / self._end
