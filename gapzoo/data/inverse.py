"""A linear inverse model of monthly sea-surface-temperature anomalies.

With x the coefficients of the leading EOFs (weighted by area over the sea) of anomalies a month,

    x(t + 1) = G x(t) + noise,     G = <x(t+1) x(t)^T> <x(t) x(t)^T>^-1,
    x(t + s) = G^s x(t),           G^s = E diag(g^s) E^-1

for any s in months (Penland & Sardeshmukh 1995), and what the EOFs leave over decays at each point
with its own autocorrelation. Eigenvalues g on the negative real axis, which no damped linear system
has, count as forgotten at once; those beyond 0.999 are held there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from gapzoo.core import GapzooError
from gapzoo.core.world import World
from gapzoo.data.archive import Archive
from gapzoo.data.forcing import Variant

MONTH = 365.25 / 12
"""Days."""
SEA = "sea_surface_temperature"
SLOWEST = 0.999


@dataclass(frozen=True)
class LinearInverse:
    """See the module.

    Args:
        patterns: (K, H, W) EOFs, K a unit.
        weights: (H, W) whose sums project an anomaly on them: area, over the sea.
        propagator: (K, K) G, over one month.
        memory: (H, W) autocorrelation over one month of what is left over, 0 to 1.
    """

    patterns: np.ndarray
    weights: np.ndarray
    propagator: np.ndarray
    memory: np.ndarray

    @classmethod
    def fit(cls, anomalies: np.ndarray, weights: np.ndarray, eofs: int = 15) -> LinearInverse:
        """From anomalies (N, H, W) of months in a row.

        Args:
            anomalies: K.
            weights: (H, W), 0 over land.
            eofs: how many to keep.

        Raises:
            GapzooError: for fewer months than twice the EOFs.
        """
        if len(anomalies) < 2 * eofs:
            raise GapzooError(f"{len(anomalies)} months of SST for {eofs} EOFs; take fewer EOFs")
        root = np.sqrt(weights)
        flat = (anomalies * root).reshape(len(anomalies), -1)
        vectors = np.linalg.svd(flat, full_matrices=False)[2][:eofs]
        patterns = np.where(root > 0, vectors.reshape(-1, *root.shape) / np.maximum(root, 1e-9), 0)
        x = flat @ vectors.T
        propagator = x[1:].T @ x[:-1] @ np.linalg.pinv(x[:-1].T @ x[:-1])
        rest = anomalies - np.tensordot(x, patterns, 1)
        return cls(patterns, weights, propagator, lagged(rest))

    def forecast(self, anomaly: np.ndarray, months: np.ndarray) -> np.ndarray:
        """(T, H, W) anomalies some months (T,) after one of (H, W)."""
        x = np.tensordot(self.patterns * self.weights, anomaly, 2)
        values, vectors = np.linalg.eig(self.propagator)
        back = np.linalg.solve(vectors, x.astype(complex))
        later = _powers(values, months) * back
        inside = np.tensordot((later @ vectors.T).real, self.patterns, 1)
        rest = anomaly - np.tensordot(x, self.patterns, 1)
        return inside + self.memory ** months[:, None, None] * rest

    def variant(self, world: World, anomaly: np.ndarray, start: pd.Timestamp) -> Variant:
        """A forcing: the sea's anomaly of (F, H, W) at ``start`` forecast, the others persisted."""
        at = world.forcing_channels.index(SEA)

        def slow(times: pd.DatetimeIndex) -> np.ndarray:
            months = np.maximum(np.asarray((times - start) / pd.Timedelta(days=MONTH), float), 0)
            found = np.repeat(anomaly[None], len(times), 0)
            found[:, at] = self.forecast(anomaly[at], months)
            return found

        return Variant(world, slow)


def _powers(values: np.ndarray, months: np.ndarray) -> np.ndarray:
    """(T, K) of g ** s."""
    size, angle = np.abs(values), np.angle(values)
    size = np.where(np.pi - np.abs(angle) < 1e-6, 0.0, np.minimum(size, SLOWEST))
    return size ** months[:, None] * np.exp(1j * angle * months[:, None])


def lagged(anomalies: np.ndarray, lag: int = 1) -> np.ndarray:
    """(...) autocorrelation of (N, ...) after ``lag`` steps, 0 to ``SLOWEST``; 0 where constant."""
    both = (anomalies[lag:] * anomalies[:-lag]).mean(0)
    own = (anomalies**2).mean(0)
    return np.clip(np.where(own > 1e-12, both / np.maximum(own, 1e-12), 0.0), 0.0, SLOWEST)


def monthly_anomalies(archive: Archive, world: World, start: str, end: str) -> np.ndarray:
    """(N, H, W) mean SST anomalies of the months from ``start`` through ``end``, from every day."""
    rows = archive.indices(start, end, max(1, round(pd.Timedelta(days=1) / archive.step)))
    times, at = archive.times[rows], world.forcing_channels.index(SEA)
    number = np.asarray(times.year * 12 + times.month)
    means = []
    for month in np.unique(number):
        here = rows[number == month]
        fields = world.forcing_anomaly(archive.read("forcing", here), archive.times[here])
        means.append(fields[:, at].mean(0))
    return np.stack(means)


def sea_weights(world: World) -> np.ndarray:
    """(H, W) cell areas where the sea is, zero over land."""
    land = np.zeros(world.grid.shape)
    if "land_sea_mask" in world.static_channels:
        land = world.static[world.static_channels.index("land_sea_mask")]
    return np.where(land < 0.5, world.grid.area_weights[:, None], 0.0)
