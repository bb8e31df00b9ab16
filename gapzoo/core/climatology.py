"""The day-of-year climatology: smooth harmonics of the mean and the variance.

    x(d) = a_0 + sum_k a_k cos(k w d) + b_k sin(k w d),   w = 2 pi / 365.25 days

at every channel and grid point; see gapzoo.data.statistics for how it is fitted.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

VARIANCE_FLOOR = 0.05
"""The fitted variance of a day is at least this share of the year's mean variance."""


def harmonics(times: pd.DatetimeIndex, count: int) -> np.ndarray:
    """(T, 1 + 2 count) float64: 1, cos, sin, cos 2, sin 2, ... of the time of year."""
    day = np.asarray(times.dayofyear - 1 + times.hour / 24 + times.minute / 1440, float)
    phase = 2 * np.pi * day[:, None] * np.arange(1, count + 1) / 365.25
    waves = np.stack([np.cos(phase), np.sin(phase)], -1).reshape(len(times), -1)
    return np.concatenate([np.ones((len(times), 1)), waves], 1)


@dataclass(frozen=True)
class Climatology:
    """Day-of-year mean and spread of every channel and grid point.

    Args:
        mean_coefficients: (1 + 2K, C, H, W) float32.
        variance_coefficients: (1 + 2K', C, H, W) float32.
    """

    mean_coefficients: np.ndarray
    variance_coefficients: np.ndarray

    def mean(self, times: pd.DatetimeIndex) -> np.ndarray:
        """(T, C, H, W) climatological mean, SI units."""
        return evaluate(self.mean_coefficients, times)

    def std(self, times: pd.DatetimeIndex) -> np.ndarray:
        """(T, C, H, W) climatological standard deviation of the day, SI units."""
        floor = VARIANCE_FLOOR * self.variance_coefficients[0]
        return np.sqrt(np.maximum(evaluate(self.variance_coefficients, times), floor))

    def select(self, channels: list[int]) -> Climatology:
        """The same for some of the channels."""
        return Climatology(
            self.mean_coefficients[:, channels], self.variance_coefficients[:, channels]
        )


def evaluate(coefficients: np.ndarray, times: pd.DatetimeIndex) -> np.ndarray:
    """(T, ...) of coefficients (1 + 2K, ...) at the times of year, float32.

    Summed in float64, so that a time has the same bits among any others.
    """
    basis = harmonics(times, len(coefficients) // 2)
    return np.tensordot(basis, coefficients.astype(np.float64), 1).astype(np.float32)
