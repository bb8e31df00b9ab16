"""Statistics of an archive's training years: mean, spread, step-to-step change, climatology.

The day-of-year climatology is a least-squares fit, at every grid point and channel, of

    x(d) = a_0 + sum_k a_k cos(k w d) + b_k sin(k w d),   w = 2 pi / 365.25 days,  k = 1..K,

to the states (K = 4), and of the same form (K = 2) to the squared anomalies, which gives the
climatological spread of the day. Both are smooth over the turn of the year and need no window.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from gapzoo.core.climatology import evaluate, harmonics
from gapzoo.data.archive import SHARD, Archive, write_array
from gapzoo.data.boundary import SOLAR

MEAN_HARMONICS = 4
VARIANCE_HARMONICS = 2
FORCING_BYTES = 2**29
"""Most forcing that is read at a time."""


class _Fit:
    """Least squares of fields on harmonics, from sums over time."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.normal: Any = 0.0
        self.right: Any = 0.0

    def add(self, times: pd.DatetimeIndex, fields: np.ndarray) -> None:
        basis = harmonics(times, self.count)
        self.normal = self.normal + basis.T @ basis
        flat = fields.reshape(len(fields), -1)
        self.right = self.right + (basis.T.astype(np.float32) @ flat).astype(np.float64)

    def solve(self, shape: tuple[int, ...]) -> np.ndarray:
        return np.linalg.solve(self.normal, self.right).reshape(-1, *shape).astype(np.float32)


def _blocks(archive: Archive, positions: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    size = min(SHARD, archive.shard)
    for start in range(0, len(positions), size):
        part = positions[start : start + size]
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
        ``climatology_variance`` as Climatology takes them; ``forcing_climatology`` and
        ``forcing_std`` of the forcing channels.
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
        anomaly = states - evaluate(climatology, archive.times[part])
        variance_fit.add(archive.times[part], anomaly**2)
        _tell(progress, len(part))
    fitted = {"climatology": climatology, "climatology_variance": variance_fit.solve(shape)}
    return {**sums.result(), **fitted, **_forcing(archive, positions)}


def _forcing(archive: Archive, positions: np.ndarray) -> dict[str, np.ndarray]:
    """Climatology of the forcing and the spread of its anomalies, from every fourth step.

    Where sunlight is among it, from every fifth: every hour of the day then has its share.
    """
    some = positions[:: 5 if SOLAR in archive.forcing_channels else 4]
    fit, squares = _Fit(MEAN_HARMONICS), []
    step = 4 * len(archive.forcing_channels) * int(np.prod(archive.grid.shape))
    size = max(1, FORCING_BYTES // step)
    parts = [some[start : start + size] for start in range(0, len(some), size)]
    for part in parts:
        fit.add(archive.times[part], archive.read("forcing", part))
    climatology = fit.solve((len(archive.forcing_channels), *archive.grid.shape))
    for part in parts:
        anomaly = archive.read("forcing", part) - evaluate(climatology, archive.times[part])
        squares.append(np.square(anomaly, dtype=np.float64).mean((0, 2, 3)) * len(part))
    std = np.sqrt(np.sum(squares, 0) / len(some))
    return {"forcing_climatology": climatology, "forcing_std": std}


def _tell(progress, count: int) -> None:  # type: ignore[no-untyped-def]
    if progress:
        progress(count)


class _Sums:
    """Area-weighted moments of states and of their change from step to step."""

    def __init__(self, weights: np.ndarray) -> None:
        self.weights = weights
        self.count, self.changes = 0, 0
        self.first: Any = 0.0
        self.second: Any = 0.0
        self.change: Any = 0.0
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
    "forcing_climatology": ("harmonic", "forcing_channel", "latitude", "longitude"),
    "forcing_std": ("forcing_channel",),
}


def store(path: Path, values: dict[str, np.ndarray]) -> None:
    """Write statistics into an archive."""
    for name, value in values.items():
        write_array(path, name, value, _DIMS[name])
