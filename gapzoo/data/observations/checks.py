"""Checks of observations against the grid, plausible limits and a background.

Each rejected observation keeps its row and gets one reason; nothing is dropped in silence. The
background check rejects where |y - H(x_b)| > limit * sqrt(error^2 + H(s_b)^2), with s_b the
background's standard deviation.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from gapzoo.core import Channels, GapzooError, Grid
from gapzoo.data.observations.form import Observations
from gapzoo.data.observations.operators import operator_for

PLAUSIBLE = {
    "u_component_of_wind": (-150.0, 150.0),
    "v_component_of_wind": (-150.0, 150.0),
    "temperature": (150.0, 340.0),
    "specific_humidity": (-1e-3, 0.05),
    "geopotential": (-1e4, 6e5),
    "surface_pressure": (4.5e4, 1.1e5),
    "mean_sea_level_pressure": (8.5e4, 1.1e5),
    "2m_temperature": (170.0, 340.0),
    "10m_u_component_of_wind": (-100.0, 100.0),
    "10m_v_component_of_wind": (-100.0, 100.0),
    "10m_wind_speed": (0.0, 120.0),
    "sea_surface_temperature": (260.0, 320.0),
}
"""Values beyond these are taken for gross errors (SI units)."""


def check(
    observations: Observations,
    grid: Grid,
    channels: Channels,
    background: Tensor | None = None,
    background_spread: Tensor | None = None,
    limit: float = 5.0,
    beyond: str = "refuse",
) -> tuple[Observations, pd.DataFrame]:
    """Split into the good, and a report on the rest.

    Args:
        background, background_spread: (C,H,W) in SI units; without them no background check.
        limit: of the background check, in standard deviations.
        beyond: ``nearest`` lets levels outside the channels' pass, as in ``operator_for``.

    Returns:
        The good observations, and the rejected rows of the table with the columns ``row``
        (position in the input) and ``reason``.
    """
    reasons = np.full(len(observations), "", dtype=object)
    for name, wrong in _static(observations, grid, channels, beyond):
        reasons[(reasons == "") & wrong] = name
    if background is not None:
        rows = np.flatnonzero(reasons == "")
        far = _departure(observations[rows], grid, channels, background, background_spread, beyond)
        for row, size in zip(rows[far > limit], far[far > limit], strict=True):
            reasons[row] = f"departs from the background by {size:.1f} standard deviations"
    bad = reasons != ""
    report = observations.table[bad].assign(row=np.flatnonzero(bad), reason=reasons[bad])
    return observations[~bad], report.reset_index(drop=True)


def _static(
    observations: Observations, grid: Grid, channels: Channels, beyond: str
) -> list[tuple[str, np.ndarray]]:
    """Checks without a background: a reason and a mask each."""
    table = observations.table
    variable, value = table["variable"].to_numpy(), table["value"].to_numpy()
    limits = np.array([PLAUSIBLE.get(str(name), (-np.inf, np.inf)) for name in variable])
    limits = limits.reshape(-1, 2)
    keys = ["time", "latitude", "longitude", "level", "variable", "station", "type"]
    known = {channel.variable for channel in channels}
    level_reasons = _level_reasons(observations, channels, beyond)
    return [
        ("variable is not among the channels", ~np.isin(variable, list(known))),
        ("outside the grid", _off_grid(grid, table["latitude"].to_numpy())),
        *((name, level_reasons == name) for name in dict.fromkeys(level_reasons) if name),
        ("value is not plausible", (value < limits[:, 0]) | (value > limits[:, 1])),
        ("duplicate of an earlier row", table.duplicated(keys).to_numpy()),
    ]


def _off_grid(grid: Grid, latitude: np.ndarray) -> np.ndarray:
    """Farther from the outermost row than one row: only on grids that leave the poles out."""
    rows = np.sort(np.asarray(grid.latitude))
    south, north = rows[0] - (rows[1] - rows[0]), rows[-1] + (rows[-1] - rows[-2])
    return (latitude < south) | (latitude > north)


def _level_reasons(observations: Observations, channels: Channels, beyond: str) -> np.ndarray:
    table = observations.table
    reasons = np.full(len(table), "", dtype=object)
    for name, rows in table.groupby("variable").indices.items():
        levels = [c.level for c in channels if c.variable == name and c.level is not None]
        if not levels:
            continue
        wanted, bounds = table["level"].to_numpy()[rows], (min(levels), max(levels))
        found = np.where(np.isnan(wanted), "level is missing", "")
        outside = (wanted < bounds[0] * (1 - 1e-6)) | (wanted > bounds[1] * (1 + 1e-6))
        if beyond == "refuse":
            found = np.where(outside, f"level outside {bounds[0]:g} to {bounds[1]:g}", found)
        if observations.level_kind != channels.level_kind:
            found = np.full(len(rows), f"level is not of kind {channels.level_kind}")
        reasons[rows] = found
    return reasons


def _departure(
    observations: Observations,
    grid: Grid,
    channels: Channels,
    background: Tensor,
    spread: Tensor | None,
    beyond: str,
) -> np.ndarray:
    """|y - H(x_b)| in standard deviations of what is expected."""
    if len(observations) == 0:
        return np.zeros(0)
    if not torch.isfinite(background).all():
        raise GapzooError("the background holds NaN; check observations against a whole state")
    operator = operator_for(observations, grid, channels, beyond)
    variance = observations.table["error"].to_numpy() ** 2
    if spread is not None:
        variance = variance + operator(spread).numpy() ** 2
    departure = observations.table["value"].to_numpy() - operator(background).numpy()
    return np.abs(departure) / np.sqrt(variance)
