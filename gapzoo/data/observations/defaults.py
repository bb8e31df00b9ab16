"""Errors of observations where a table names none: by type, variable and level.

Standard deviations in SI units, instrument and representativeness together, for grids of some
hundred kilometres; round numbers of the size that operational centres use. A profile of errors is
(hPa, error) pairs, linear in the logarithm of pressure and constant beyond its ends. Types that
are not listed, and variables that a type does not list, have the error of ``STANDARD_ERRORS``.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from gapzoo.data.observations.columns import STANDARD_ERRORS

Profile = tuple[tuple[float, float], ...]
_WINDS = ("u_component_of_wind", "v_component_of_wind")
_SURFACE_WINDS = ("10m_u_component_of_wind", "10m_v_component_of_wind", "10m_wind_speed")


def _winds(error: float | Profile, names: tuple[str, ...] = _WINDS) -> dict[str, float | Profile]:
    return dict.fromkeys(names, error)


_STATION: dict[str, float | Profile] = {
    "surface_pressure": 100.0,
    "mean_sea_level_pressure": 120.0,
    "2m_temperature": 2.0,
    **_winds(3.0, _SURFACE_WINDS),
}
ERRORS_BY_TYPE: dict[str, dict[str, float | Profile]] = {
    "radiosonde": {
        "temperature": ((1000, 1.4), (850, 1.2), (500, 1.0), (300, 1.0), (150, 1.3), (30, 1.5)),
        **_winds(((1000, 1.9), (700, 2.0), (300, 2.6), (150, 2.4), (30, 2.2))),
        "specific_humidity": ((1000, 1.4e-3), (850, 1.2e-3), (700, 8e-4), (500, 4e-4), (300, 8e-5)),
        "surface_pressure": 100.0,
    },
    "synop": _STATION,
    "metar": _STATION,
    "ship": {**_STATION, "surface_pressure": 150.0, "sea_surface_temperature": 0.8},
    "buoy": {**_STATION, "sea_surface_temperature": 0.4},
    "aircraft": {"temperature": 1.5, **_winds(3.0)},
    "satellite": {"temperature": 2.0, **_winds(((1000, 3.5), (700, 4.0), (300, 6.0)))},
}


def default_errors(table: pd.DataFrame, level_kind: str) -> pd.Series:
    """The error of each row of a table with the columns type, variable and level; NaN if unknown.

    Args:
        table: of observations.
        level_kind: ``sigma`` levels count as those of 1000 hPa at the ground.
    """
    errors = table["variable"].map(STANDARD_ERRORS).astype(float)
    pressure = table["level"].astype(float) * (1000.0 if level_kind == "sigma" else 1.0)
    for (kind, variable), rows in table.groupby(["type", "variable"]).groups.items():
        own = ERRORS_BY_TYPE.get(kind, {}).get(variable)
        if own is not None:
            errors.loc[rows] = _at(own, pressure.loc[rows].to_numpy())
    return errors


def _at(error: float | Profile, pressure: np.ndarray) -> np.ndarray:
    if isinstance(error, float):
        return np.full(len(pressure), error)
    levels, values = np.array(sorted(error)).T
    return np.interp(np.log(np.nan_to_num(pressure, nan=1000.0)), np.log(levels), values)
