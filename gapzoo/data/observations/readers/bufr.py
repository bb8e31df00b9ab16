"""BUFR: soundings, aircraft, land and sea stations, through eccodes (the extra ``bufr``).

Winds come from direction and speed, specific humidity from dew point and pressure by

    e = 611.2 Pa exp(17.67 (Td - 273.15) / (Td - 29.65)),    q = 0.622 e / (p - 0.378 e)

(Bolton 1980, over water, as dew points are reported). A sounding's level that is marked as the
surface gives the surface pressure at the station's height. Aircraft without pressure get that of
the standard atmosphere at their flight level, which is what they measure.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from gapzoo.core import VARIABLES, GapzooError
from gapzoo.core.pressure import GRAVITY
from gapzoo.data.observations.form import Observations, standard_pressure
from gapzoo.data.observations.messages import GROUND, decode
from gapzoo.data.observations.readers import READERS

KINDS = {0: "synop", 1: "ship", 2: "radiosonde", 3: "satellite", 4: "aircraft", 5: "satellite"}
"""Type by BUFR data category (table A)."""


@READERS.register(".bufr")
def read_bufr(path: Path, level_kind: str | None = None) -> Observations:
    """Read every message of a file.

    Raises:
        GapzooError: where eccodes is not installed, a message cannot be decoded, nothing that
            gapzoo knows is in the file, or a ``level_kind`` is given.
    """
    if level_kind:
        raise GapzooError("BUFR knows its own levels, which are of pressure; drop --level-kind")
    table = decode(path)
    ground = table["category"].isin(GROUND)
    parts = [*_tables(table[~ground], _profiles), *_tables(table[ground], _stations)]
    if not parts:
        raise GapzooError("no report with a value that gapzoo knows; is it a BUFR file?")
    return Observations(pd.concat(parts, ignore_index=True))


READERS.register(".bfr")(read_bufr)


def specific_humidity(dewpoint: pd.Series, pressure: pd.Series) -> pd.Series:
    """Specific humidity (kg/kg) of air with a dew point (K) at a pressure (Pa).

    NaN where the vapour alone would have more than the pressure: that is no dew point.
    """
    vapour = 611.2 * np.exp(17.67 * (dewpoint - 273.15) / (dewpoint - 29.65))
    vapour = vapour.where(vapour < pressure)
    return 0.622 * vapour / (pressure - 0.378 * vapour)


def wind(direction: pd.Series, speed: pd.Series) -> tuple[pd.Series, pd.Series]:
    """Components towards east and north of a wind from a direction (degrees)."""
    angle = np.deg2rad(direction)
    return -speed * np.sin(angle), -speed * np.cos(angle)


def _profiles(table: pd.DataFrame) -> dict[str, pd.Series]:
    """Values by variable, SI units."""
    eastward, northward = wind(table["windDirection"], table["windSpeed"])
    height = GRAVITY * table["nonCoordinateGeopotentialHeight"]
    moist = specific_humidity(table["dewpointTemperature"], table["pressure"])
    return {
        "temperature": table["airTemperature"],
        "specific_humidity": table["specificHumidity"].fillna(moist),
        "u_component_of_wind": eastward,
        "v_component_of_wind": northward,
        "geopotential": table["nonCoordinateGeopotential"].fillna(height),
        "surface_pressure": table["pressure"].where(table["surface"]),
    }


def _stations(table: pd.DataFrame) -> dict[str, pd.Series]:
    """Values by variable, SI units; the older templates name the height in the element."""
    direction = table["windDirectionAt10M"].fillna(table["windDirection"])
    eastward, northward = wind(direction, table["windSpeedAt10M"].fillna(table["windSpeed"]))
    dewpoint = table["dewpointTemperatureAt2M"].fillna(table["dewpointTemperature"])
    water = table["seaSurfaceTemperature"].fillna(table["oceanographicWaterTemperature"])
    return {
        "surface_pressure": table["nonCoordinatePressure"],
        "mean_sea_level_pressure": table["pressureReducedToMeanSeaLevel"],
        "2m_temperature": table["airTemperatureAt2M"].fillna(table["airTemperature"]),
        "2m_dewpoint_temperature": dewpoint,
        "10m_u_component_of_wind": eastward,
        "10m_v_component_of_wind": northward,
        "sea_surface_temperature": water,
    }


Values = Callable[[pd.DataFrame], dict[str, pd.Series]]


def _tables(table: pd.DataFrame, values: Values) -> list[pd.DataFrame]:
    """A table of observations for each variable that has values."""
    flight = pd.Series(standard_pressure(table["flightLevel"]), table.index)
    pressure = (table["pressure"] / 100.0).fillna(flight)
    found = []
    for variable, value in values(table).items():
        aloft = VARIABLES[variable].place == "levels"
        known = value.notna() & (pressure.notna() if aloft else True)
        columns = {
            "time": table["time"],
            "latitude": table["latitude"],
            "longitude": (table["longitude"] + 180) % 360 - 180,
            "level": pressure if aloft else np.nan,
            "height": table["height"],
            "variable": variable,
            "value": value,
            "type": table["category"].map(lambda c: KINDS.get(c, f"bufr-{c}")),
            "station": table["station"],
        }
        found.append(pd.DataFrame(columns)[known])
    return [part for part in found if len(part)]
