"""What is known, or may be assumed, of the forcing: anomalies as functions of time.

A forcing, as tasks take it, maps times (T,) to anomalies (T, F, H, W) from a world's forcing
climatology. With a_0 the anomaly known at t_0:

    observed        what an archive holds
    climatological  0
    persisted       a_0
    damped          a_0 exp(-(t - t_0) / tau)

Sunlight is known for all times, so every variant computes it and assumes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from gapzoo.core import GapzooError
from gapzoo.core.climatology import evaluate
from gapzoo.core.world import World
from gapzoo.data.archive import Archive
from gapzoo.data.boundary import SOLAR, Period, Solar, between, covers, days_of

Forcing = Callable[[pd.DatetimeIndex], np.ndarray]
"""Times (T,) to forcing anomalies (T, F, H, W) in SI units."""
FIX = "take other dates, or 'sst: climatology' in the recipe"
"""The one variant that is known at all times wherever a run starts."""


def require(forcing: Forcing | None, start: pd.Timestamp, end: pd.Timestamp) -> None:
    """Refuse a run that its forcing does not reach to the end of, before it starts.

    Args:
        forcing: any; one without a ``period``, or None (climatology), is known at all times.
        start: first time of the run.
        end: its last.
    """
    period = getattr(forcing, "period", None)
    if period is not None:
        names = getattr(forcing, "name", "forcing")
        covers(period, pd.DatetimeIndex([start, end]), names, FIX)


@dataclass(frozen=True)
class Variant:
    """A forcing for a world: an assumption about its slow channels, sunlight computed.

    Args:
        world: whose climatology the anomalies are from.
        slow: times to anomalies (T, F, H, W); what it gives for sunlight is replaced.
        period: of the slow channels; None for all time.
        name: for errors.
    """

    world: World
    slow: Forcing
    period: Period | None = None
    name: str = "forcing"

    def __call__(self, times: pd.DatetimeIndex) -> np.ndarray:
        """(T, F, H, W) anomalies, SI units; raises GapzooError outside the period."""
        if self.period is not None:
            covers(self.period, times, self.name, FIX)
        anomaly = np.array(self.slow(times), np.float32)
        if SOLAR in self.world.forcing_channels:
            at = self.world.forcing_channels.index(SOLAR)
            mean = evaluate(self.world.forcing_climatology[:, at], times)
            anomaly[:, at] = Solar(self.world.grid)(times) - mean
        return anomaly


def observed(archive: Archive, world: World) -> Variant:
    """What an archive holds, linear in time between its steps.

    Args:
        archive: on the world's grid, with its forcing channels.
        world: whose climatology the anomalies are from.
    """
    if tuple(archive.forcing_channels) != tuple(world.forcing_channels):
        raise GapzooError(
            f"{archive.path} has the forcing {', '.join(archive.forcing_channels)}; {world.name} "
            f"takes {', '.join(world.forcing_channels)}"
        )

    archive.require_single()

    def slow(times: pd.DatetimeIndex) -> np.ndarray:
        after = np.clip(np.searchsorted(archive.times, times), 1, len(archive.times) - 1)
        both = np.unique(np.stack([after - 1, after]))
        fields = world.forcing_anomaly(archive.read("forcing", both), archive.times[both])
        return between(days_of(archive.times[both]), fields, days_of(times))

    period = (archive.times[0], archive.times[-1])
    return Variant(world, slow, period, f"the forcing of {archive.path.name}")


def climatological(world: World) -> Variant:
    """The climatology of every slow channel."""
    return persisted(world, np.zeros((len(world.forcing_channels), *world.grid.shape)))


def persisted(world: World, anomaly: np.ndarray) -> Variant:
    """Anomalies (F, H, W) that stay as they are."""
    return Variant(world, lambda times: np.broadcast_to(anomaly, (len(times), *anomaly.shape)))


def damped(
    world: World, anomaly: np.ndarray, start: pd.Timestamp, days: float | np.ndarray
) -> Variant:
    """Anomalies that decay towards the climatology.

    Args:
        world: whose climatology they are from.
        anomaly: (F, H, W) at ``start``, SI units.
        start: t_0; before it the anomaly is as at ``start``.
        days: e-folding time, a number or (F, 1, 1) or (F, H, W); infinite is persistence.
    """
    scale = np.broadcast_to(np.asarray(days, float), anomaly.shape)
    if not (scale > 0).all():
        raise GapzooError("damped persistence takes a time in days above 0")

    def slow(times: pd.DatetimeIndex) -> np.ndarray:
        age = np.maximum((times - start) / pd.Timedelta(days=1), 0.0)
        return anomaly * np.exp(-np.asarray(age, float)[:, None, None, None] / scale)

    return Variant(world, slow)


def decay_days(lagged: float | np.ndarray, lag_days: float) -> np.ndarray:
    """E-folding time of an anomaly whose correlation with itself after a lag is known.

    Args:
        lagged: autocorrelation, of any shape; held within 0.01 to 0.999.
        lag_days: the lag.
    """
    return -lag_days / np.log(np.clip(lagged, 0.01, 0.999))
