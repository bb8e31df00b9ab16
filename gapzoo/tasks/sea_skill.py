"""How far assumptions about the sea surface are from the sea that came, month by month.

Of monthly mean anomalies f that were assumed and o that were observed, in cells of the sea with
areas w, averages over cells and starts,

    rmse    <w (f - o)^2>^1/2 / <w>^1/2
    acc     <w f o> / (<w f^2> <w o^2>)^1/2        not defined where nothing is assumed
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from gapzoo.core.world import World
from gapzoo.data.forcing import Forcing, require
from gapzoo.data.inverse import SEA, sea_weights
from gapzoo.tasks.hindcast import nino34_weights
from gapzoo.tasks.sea import SeaSurface


@dataclass(frozen=True)
class SeaSkill:
    """Of one assumption, by month (L,).

    Args:
        rmse: K.
        acc: anomaly correlation; NaN without anomalies.
        nino34: root mean square error of the Nino3.4 index, K.
    """

    rmse: np.ndarray
    acc: np.ndarray
    nino34: np.ndarray


def sea_skill(
    seas: Mapping[str, SeaSurface],
    truth: SeaSurface,
    times: pd.DatetimeIndex,
    months: int,
    progress: Callable[[int], None] | None = None,
) -> dict[str, SeaSkill]:
    """Skill of each assumption.

    Args:
        seas: by name.
        truth: ``observed``.
        times: starts, each the first of a month.
        months: L.
        progress: called with 1 after each start.

    Raises:
        GapzooError: where the observed sea ends before a start's last month.
    """
    world, sums = truth.world, {name: np.zeros((5, months)) for name in seas}
    parts = [sea_weights(world), nino34_weights(world)]
    for time in times:
        observed = truth.at(time)
        require(observed, time, time + pd.DateOffset(months=months) - pd.Timedelta(days=1))
        o = monthly(observed, world, time, months)
        for name, sea in seas.items():
            f = monthly(sea.at(time), world, time, months)
            products = [(f - o) ** 2, f * o, f**2, o**2]
            sums[name][:4] += [(parts[0] * p).sum((-2, -1)) for p in products]
            sums[name][4] += (parts[1] * (f - o)).sum((-2, -1)) ** 2
        if progress:
            progress(1)
    area = parts[0].sum()
    return {name: _skill(found, len(times), area) for name, found in sums.items()}


def monthly(forcing: Forcing, world: World, start: pd.Timestamp, months: int) -> np.ndarray:
    """(L, H, W) SST anomalies of the months from ``start``, means of their days."""
    at = world.forcing_channels.index(SEA)
    edges = pd.date_range(start, periods=months + 1, freq="MS")
    days = [pd.date_range(a, b, inclusive="left") for a, b in itertools.pairwise(edges)]
    return np.stack([forcing(d)[:, at].mean(0) for d in days])


def _skill(sums: np.ndarray, count: int, area: float) -> SeaSkill:
    error, both, own, other, nino = sums
    with np.errstate(invalid="ignore"):
        acc = both / np.sqrt(own * other)
    return SeaSkill(np.sqrt(error / (count * area)), acc, np.sqrt(nino / count))
