"""Forcings of roll-outs, and what the prior says of a climate under one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from torch import Tensor

from gapzoo.core.world import World
from gapzoo.diffusion.prior import Prior

Forcing = Callable[[pd.DatetimeIndex], np.ndarray]
"""Times (T,) to forcing anomalies (T, F, H, W) in SI units."""
FEW_DAYS = 5
"""Over which the sea and the time of year, and so the prior's mean, hardly change."""


def persisted(anomaly: np.ndarray) -> Forcing:
    """Forcing whose anomalies (F, H, W) stay as they are."""
    return lambda times: np.broadcast_to(anomaly, (len(times), *anomaly.shape))


def anomaly_at(forcing: Forcing | None, time: pd.Timestamp) -> np.ndarray | None:
    """(F, H, W) of a time; None is the climatology."""
    return None if forcing is None else forcing(pd.DatetimeIndex([time]))[0]


def condition_at(world: World, forcing: Forcing | None, time: pd.Timestamp) -> Tensor:
    """(1, K, H, W): what networks are told of a time."""
    anomaly = anomaly_at(forcing, time)
    return world.condition(pd.DatetimeIndex([time]), None if anomaly is None else anomaly[None])


@dataclass(frozen=True)
class ForcedMeans:
    """The prior's means under forcings; those that were asked for last are kept.

    Args:
        prior: whose.
        world: of its states.
    """

    prior: Prior
    world: World
    _kept: dict[tuple[int, int], tuple[Forcing | None, pd.Timestamp, Tensor]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def __call__(self, forcing: Forcing | None, time: pd.Timestamp) -> Tensor:
        """(1, C, H, W) under the forcing of the first of ``FEW_DAYS``."""
        day, key = _first_of_few(time, forcing), (id(forcing), time.hour)
        known = self._kept.get(key)
        if known is None or known[0] is not forcing or known[1] != day:
            condition = condition_at(self.world, forcing, day)
            known = (forcing, day, self.prior.mean(condition, self.world.shape))
            self._kept[key] = known
        return known[2]


def _first_of_few(time: pd.Timestamp, forcing: Forcing | None) -> pd.Timestamp:
    """The same for all times of ``FEW_DAYS`` but for the hour; none before a forcing begins."""
    back = pd.Timedelta(days=time.toordinal() % FEW_DAYS)
    period = getattr(forcing, "period", None)
    return time - back if period is None or time - back >= period[0] else time
