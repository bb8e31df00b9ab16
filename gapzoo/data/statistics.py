"""Statistics of an archive's training years: mean, spread, step-to-step change, climatology.

The day-of-year climatology is a least-squares fit, at every grid point and channel, of

    x(d) = a_0 + sum_k a_k cos(k w d) + b_k sin(k w d),   w = 2 pi / 365.25 days,  k = 1..K,

to the states (K = 4), and of the same form (K = 2) to the squared anomalies, which gives the
climatological spread of the day. Both are smooth over the turn of the year and need no window.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from gapzoo.data.archive import SHARD, Archive, write_array

MEAN_HARMONICS = 4
VARIANCE_HARMONICS = 2
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
        return _evaluate(self.mean_coefficients, times)

    def std(self, times: pd.DatetimeIndex) -> np.ndarray:
        """(T, C, H, W) climatological standard deviation of the day, SI units."""
        floor = VARIANCE_FLOOR * self.variance_coefficients[0]
        return np.sqrt(np.maximum(_evaluate(self.variance_coefficients, times), floor))

    def select(self, channels: list[int]) -> Climatology:
        """The same for some of the channels."""
        return Climatology(
            self.mean_coefficients[:, channels], self.variance_coefficients[:, channels]
        )

    @classmethod
    def of(cls, archive: Archive) -> Climatology:
        """The climatology stored in an archive."""
        return cls(archive.array("climatology"), archive.array("climatology_variance"))


def _evaluate(coefficients: np.ndarray, times: pd.DatetimeIndex) -> np.ndarray:
    basis = harmonics(times, len(coefficients) // 2).astype(np.float32)
    return np.tensordot(basis, coefficients, 1)


class _Fit:
    """Least squares of fields on harmonics, from sums over time."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.normal, self.right = 0.0, 0.0

    def add(self, times: pd.DatetimeIndex, fields: np.ndarray) -> None:
        basis = harmonics(times, self.count)
        self.normal = self.normal + basis.T @ basis
        flat = fields.reshape(len(fields), -1)
        self.right = self.right + (basis.T.astype(np.float32) @ flat).astype(np.float64)

    def solve(self, shape: tuple[int, ...]) -> np.ndarray:
        return np.linalg.solve(self.normal, self.right).reshape(-1, *shape).astype(np.float32)


def _blocks(archive: Archive, positions: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for start in range(0, len(positions), SHARD):
        part = positions[start : start + SHARD]
        yield part, archive.read("state", part)


def compute(archive: Archive, start: str, end: str, progress=None) -> dict[str, np.ndarray]:  # type: ignore[no-untyped-def]
    """All statistics of the steps from ``start`` through ``end``.

    Two passes over the data in time order, sums in float64, so that the result does not depend
    on how the archive was built.

    Args:
        archive: a store whose states are all written.
        start: first day of the training period.
        end: last day, inclusive.
        progress: called with the number of steps done, twice the period in all.

    Returns:
        ``mean``, ``std``, ``diff_std`` (C,) area-weighted; ``climatology``,
        ``climatology_variance`` as Climatology takes them.
    """
    positions = archive.indices(start, end)
    weights = archive.grid.area_weights[:, None] / np.prod(archive.grid.shape)
    sums = _Sums(weights)
    mean_fit, variance_fit = _Fit(MEAN_HARMONICS), _Fit(VARIANCE_HARMONICS)
    for part, states in _blocks(archive, positions):
        sums.add(states, archive.runs[part])
        mean_fit.add(archive.times[part], states)
        _tell(progress, len(part))
    shape = (len(archive.channels), *archive.grid.shape)
    climatology = mean_fit.solve(shape)
    for part, states in _blocks(archive, positions):
        anomaly = states - _evaluate(climatology, archive.times[part])
        variance_fit.add(archive.times[part], anomaly**2)
        _tell(progress, len(part))
    fitted = {"climatology": climatology, "climatology_variance": variance_fit.solve(shape)}
    return {**sums.result(), **fitted}


def _tell(progress, count: int) -> None:  # type: ignore[no-untyped-def]
    if progress:
        progress(count)


class _Sums:
    """Area-weighted moments of states and of their change from step to step."""

    def __init__(self, weights: np.ndarray) -> None:
        self.weights = weights
        self.count, self.first, self.second = 0, 0.0, 0.0
        self.changes, self.change = 0, 0.0
        self._last: tuple[np.ndarray, int] | None = None

    def add(self, states: np.ndarray, runs: np.ndarray) -> None:
        self.count += len(states)
        self.first = self.first + self._area(states.sum(0, dtype=np.float64))
        self.second = self.second + self._area(np.square(states, dtype=np.float64).sum(0))
        if self._last is not None:
            states = np.concatenate([self._last[0][None], states])
            runs = np.concatenate([[self._last[1]], runs])
        unbroken = np.diff(runs) == 0
        steps = np.diff(states, axis=0)[unbroken]
        self.changes += len(steps)
        self.change = self.change + self._area(np.square(steps, dtype=np.float64).sum(0))
        self._last = states[-1], int(runs[-1])

    def result(self) -> dict[str, np.ndarray]:
        mean = self.first / self.count
        std = np.sqrt(np.maximum(self.second / self.count - mean**2, 0.0))
        diff = np.sqrt(self.change / max(self.changes, 1))
        return {"mean": mean, "std": std, "diff_std": diff}

    def _area(self, fields: np.ndarray) -> np.ndarray:
        return (fields * self.weights).sum((-2, -1))


_DIMS = {
    "mean": ("channel",),
    "std": ("channel",),
    "diff_std": ("channel",),
    "climatology": ("harmonic", "channel", "latitude", "longitude"),
    "climatology_variance": ("variance_harmonic", "channel", "latitude", "longitude"),
}


def store(path: Path, values: dict[str, np.ndarray]) -> None:
    """Write statistics into an archive."""
    for name, value in values.items():
        write_array(path, name, value, _DIMS[name])
