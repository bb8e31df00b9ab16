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
) -> Observations:
    """Average each box with weights 1/error^2.

    Args:
        correlation: of the errors within a box. The average of n has the variance
            v (correlation + (1 - correlation) / n), v the harmonic mean of the variances.

    Raises:
        GapzooError: where the correlation is not within 0..1.
    """
    if not 0 <= correlation <= 1:
        raise GapzooError(f"correlation {correlation}; give one within 0 to 1")
    table = observations.table.assign(box=_boxes(observations, degrees, hours, levels))
    groups = table.groupby(["variable", "box"], sort=False)
    rows = [_average(group, correlation) for _, group in groups]
    return Observations(pd.DataFrame(rows), observations.level_kind)


def _average(group: pd.DataFrame, correlation: float) -> dict:
    first = group.iloc[0]
    if len(group) == 1:
        return first.drop("box").to_dict()
    weights = (1 / group["error"] ** 2).to_numpy()
    share = weights / weights.sum()
    east = np.exp(1j * np.deg2rad(group["longitude"].to_numpy())) @ share
    variance = len(group) / weights.sum() * (correlation + (1 - correlation) / len(group))
    since = (group["time"] - first["time"]).dt.total_seconds().to_numpy() @ share
    return {
        "time": first["time"] + pd.Timedelta(seconds=float(since)),
        "latitude": group["latitude"].to_numpy() @ share,
        "longitude": np.rad2deg(np.angle(east)),
        "level": np.exp(np.log(group["level"].to_numpy()) @ share),
        "variable": first["variable"],
        "value": group["value"].to_numpy() @ share,
        "error": np.sqrt(variance),
        "type": first["type"],
        "station": first["station"],
    }


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
