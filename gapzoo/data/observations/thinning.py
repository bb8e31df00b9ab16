"""Thinning and super-obbing: fewer, less dependent observations in boxes of equal size.

A box holds the observations of one variable within ``degrees`` of latitude, about as many
kilometres of longitude, ``hours`` of time and ``levels`` of the level's logarithm.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from gapzoo.core import GapzooError
from gapzoo.data.observations.form import Observations


def thin(
    observations: Observations, degrees: float, hours: float = 1.0, levels: float = 0.1
) -> Observations:
    """Keep of each box the observation of least error; the first of equals."""
    order = observations.table.assign(box=_boxes(observations, degrees, hours, levels))
    order = order.sort_values("error", kind="stable")
    rows = order.drop_duplicates(["variable", "box"]).index.to_numpy()
    return observations[np.sort(rows)]


def superob(
    observations: Observations,
    degrees: float,
    hours: float = 1.0,
    levels: float = 0.1,
    correlation: float = 0.0,
    by_station: bool = False,
) -> Observations:
    """Average each box with weights 1/error^2.

    Args:
        correlation: of the errors within a box. The average of n has the variance
            v (correlation + (1 - correlation) / n), v the harmonic mean of the variances.
        by_station: keep stations apart, so that only the levels of each are averaged.

    Raises:
        GapzooError: where the correlation is not within 0..1.
    """
    if not 0 <= correlation <= 1:
        raise GapzooError(f"correlation {correlation}; give one within 0 to 1")
    table = observations.table.assign(box=_boxes(observations, degrees, hours, levels))
    keys = ["variable", "box", *["station"] * by_station]
    box = table.groupby(keys, sort=False).ngroup().to_numpy()
    averaged = _averages(table, box, correlation).drop(columns="box")
    return Observations(averaged, observations.level_kind)


def _averages(table: pd.DataFrame, box: np.ndarray, correlation: float) -> pd.DataFrame:
    """One row a box; what is not averaged is that of its first row."""
    weight = (1 / table["error"] ** 2).to_numpy()
    count, total = np.bincount(box), np.bincount(box, weight)

    def mean(values: np.ndarray) -> np.ndarray:
        return np.bincount(box, weight * values) / total

    first = table.groupby(box).head(1).reset_index(drop=True)
    turn = np.exp(1j * np.deg2rad(table["longitude"].to_numpy()))
    longitude = np.rad2deg(np.angle(mean(turn.real) + 1j * mean(turn.imag)))
    since = (table["time"] - first["time"].to_numpy()[box]).dt.total_seconds().to_numpy()
    first["time"] += pd.to_timedelta(mean(since), unit="s").round("ms").to_numpy()
    first["longitude"] = np.where(count > 1, longitude, first["longitude"])
    first["level"] = np.exp(mean(np.log(table["level"].to_numpy())))
    for name in ("latitude", "height", "value"):
        first[name] = mean(table[name].to_numpy())
    first["latitude"] = first["latitude"].clip(-90, 90)  # against rounding at a pole
    first["error"] = np.sqrt(count / total * (correlation + (1 - correlation) / count))
    return first


def _boxes(observations: Observations, degrees: float, hours: float, levels: float) -> list:
    """A key an observation; boxes of a row narrow with the latitude."""
    if min(degrees, hours, levels) <= 0:
        raise GapzooError("boxes need a positive size in degrees, hours and levels")
    table = observations.table
    row = np.floor((table["latitude"].to_numpy() + 90) / degrees)
    middle = np.deg2rad(np.clip((row + 0.5) * degrees - 90, -90, 90))
    count = np.maximum(1, np.round(360 * np.cos(middle) / degrees))
    column = np.floor(table["longitude"].to_numpy() / 360 * count)
    hour = table["time"].to_numpy().astype("datetime64[s]").astype(float) / 3600
    height = np.floor(np.log(table["level"].fillna(1.0).to_numpy()) / levels + 1e-9)
    return list(zip(row, column, np.floor(hour / hours), height, strict=True))
