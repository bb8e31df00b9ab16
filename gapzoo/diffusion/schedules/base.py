"""Noise schedules: the contract.

The noisy state at time t in [0, 1] is ``x_t = alpha x + sigma z`` with ``z ~ N(0, I)``. Time 0 is
the clean state in every schedule (alpha 1, sigma 0); at time 1 the noise-to-signal ratio
``sigma / alpha`` is ``sigma_max``. The ratio grows with t, so that it has an inverse, and it goes
on growing a little past t = 1 (samplers that add noise first need that).
"""

from __future__ import annotations

import abc
import itertools
import math

import torch
from torch import Tensor

from gapzoo.core import GapzooError


class Schedule(abc.ABC):
    """Maps a time to the scales of signal and noise. Subclasses are frozen dataclasses."""

    @abc.abstractmethod
    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """(alpha, sigma), both shaped and typed as ``t``."""

    @abc.abstractmethod
    def t_of_sigma(self, sigma: Tensor) -> Tensor:
        """The time at which the noise-to-signal ratio ``sigma / alpha`` is ``sigma``."""

    def ratio(self, t: Tensor) -> Tensor:
        """Noise-to-signal ratio ``sigma / alpha``: the noise level of ``x_t / alpha``."""
        alpha, sigma = self(t)
        return sigma / alpha

    def times(self, steps: int, start: float = 1.0) -> Tensor:
        """A sampler's decreasing times from ``start`` to 0: (steps + 1,) float64.

        Raises:
            GapzooError: where ``steps`` is below 1 or ``start`` is not within (0, 1].
        """
        check_grid(steps, start)
        return torch.linspace(start, 0.0, steps + 1, dtype=torch.float64)


def check_grid(steps: int, start: float) -> None:
    """Refuse a grid of times that would be empty or lie outside the schedule."""
    if steps < 1:
        raise GapzooError(f"steps is {steps}; a sampler takes at least 1")
    if not 0.0 < start <= 1.0:
        raise GapzooError(f"start time is {start:g}; it lies within (0, 1], 1 being pure noise")


def check_sigmas(name: str, *sigmas: float) -> None:
    """Refuse noise levels that are not positive, finite and increasing."""
    ordered = all(a < b for a, b in itertools.pairwise(sigmas))
    if not ordered or sigmas[0] <= 0 or not math.isfinite(sigmas[-1]):
        raise GapzooError(f"schedule '{name}': noise levels {sigmas} must be 0 < lower < upper")
