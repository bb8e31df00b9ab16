"""Observations in memory: one checked table, one row a value."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from torch import Tensor

from gapzoo.core import VARIABLES, Channels, GapzooError, nearest
from gapzoo.core.channels import LEVEL_UNITS
from gapzoo.core.pressure import GRAVITY
from gapzoo.data.observations.defaults import default_errors
from gapzoo.data.observations.operators import LinearObservationOperator
from gapzoo.data.units import conversion

NUMBERS = ("latitude", "longitude", "level", "height", "value", "error")
COLUMNS = ("time", *NUMBERS[:4], "variable", "value", "error", "type", "station")


@dataclass(frozen=True)
class Observations:
    """A table with the columns time, latitude, longitude, level, height, variable, value, error,
    type and station.

    Values and errors (standard deviations) are in the SI units of ``VARIABLES``; a column
    ``units`` names others, which are converted. Levels are of ``level_kind`` (``pressure`` in
    hPa, ``sigma``), NaN for single-level variables; heights are metres above the sea, of the
    station or of an observation without a level (see ``levels_from_height``). Longitudes from
    -180 to 360 are kept as 0..360. Where ``error`` is left out, or NaN, the default of type and
    variable stands in; ``level``, ``height``, ``type`` and ``station`` may be left out.

    Raises:
        GapzooError: for a missing column, an unknown variable, a value that is not finite, a
            place off the Earth, a level or error that is not positive: with row and fix.
    """

    table: pd.DataFrame
    level_kind: str = "pressure"

    def __post_init__(self) -> None:
        if self.level_kind not in LEVEL_UNITS:
            raise GapzooError(
                f"level kind '{self.level_kind}'; {nearest(self.level_kind, LEVEL_UNITS)}"
            )
        table = _complete(self.table, self.level_kind)
        _validate(table)
        table["longitude"] = table["longitude"] % 360.0
        object.__setattr__(self, "table", table)

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, rows: Any) -> Observations:
        """The rows of a mask, a slice or an array of positions."""
        return replace(self, table=self.table.iloc[rows])

    @property
    def has_levels(self) -> bool:
        """Whether any observation lies on a level."""
        return bool(self.table["level"].notna().any())

    @classmethod
    def concatenate(cls, parts: Iterable[Observations]) -> Observations:
        """Join tables of one kind of level."""
        parts = list(parts)
        kinds = {part.level_kind for part in parts if part.has_levels}
        if not parts or len(kinds) > 1:
            raise GapzooError(f"cannot join {len(parts)} tables on levels {sorted(kinds)}; convert")
        kind = kinds.pop() if kinds else parts[0].level_kind
        return cls(pd.concat([part.table for part in parts], ignore_index=True), kind)

    @classmethod
    def from_operator(
        cls,
        operator: LinearObservationOperator,
        channels: Channels,
        values: Tensor,
        errors: Tensor,
        time: Any,
        kind: str = "simulated",
    ) -> Observations:
        """Values (N,) of a network that observes channels of the grid, each at its own level."""
        named = [channels[int(c)] for c in operator.channel]
        table = {
            "time": time,
            "latitude": operator.latitude.cpu().numpy(),
            "longitude": operator.longitude.cpu().numpy(),
            "level": [np.nan if c.level is None else c.level for c in named],
            "variable": [c.variable for c in named],
            "value": values.cpu().numpy(),
            "error": errors.cpu().numpy(),
            "type": kind,
        }
        return cls(pd.DataFrame(table), channels.level_kind)

    def between(self, start: Any, end: Any) -> Observations:
        """Observations with start <= time < end."""
        time = self.table["time"]
        return self[((time >= pd.Timestamp(start)) & (time < pd.Timestamp(end))).to_numpy()]

    def on_sigma(self, surface_pressure: np.ndarray) -> Observations:
        """Pressure levels as sigma = p / ps, with ``surface_pressure`` (N,) in Pa at each row."""
        if self.level_kind == "sigma":
            return self
        sigma = self.table["level"] * 100.0 / np.asarray(surface_pressure, float)
        return Observations(self.table.assign(level=sigma), "sigma")

    def levels_from_height(self) -> Observations:
        """Levels of profile variables that have a height alone, by the standard atmosphere.

        ICAO's, p = 1013.25 (1 - 0.0065 h / 288.15)^5.2559 to 11 km and isothermal above it; real
        pressure at a height differs from it by a few per cent.
        """
        profile = [VARIABLES[name].place == "levels" for name in self.table["variable"]]
        wanted = np.array(profile) & self.table["level"].isna() & self.table["height"].notna()
        level = self.table["level"].mask(wanted, standard_pressure(self.table["height"]))
        return replace(self, table=self.table.assign(level=level))

    def to_xarray(self) -> xr.Dataset:
        """A Dataset on the dimension ``observation``; units of levels in its attributes."""
        table = self.table.reset_index(drop=True).rename_axis("observation")
        attributes = {"level_kind": self.level_kind}
        found = xr.Dataset.from_dataframe(table).assign_attrs(attributes)
        found["level"].attrs["units"] = LEVEL_UNITS[self.level_kind]
        return found.reset_coords(drop=True) if "observation" in found.coords else found

    @classmethod
    def from_xarray(cls, data: xr.Dataset) -> Observations:
        """Read what ``to_xarray`` writes (every variable on one dimension)."""
        names = [str(name) for name in data.variables if str(name) in COLUMNS]
        table = pd.DataFrame({name: data[name].values for name in names})
        return cls(table, data.attrs.get("level_kind", "pressure"))

    def write(self, path: str | Path) -> None:
        """Write .csv, .parquet or .nc by the suffix; ``read_observations`` reads them back."""
        from gapzoo.data.observations.readers import write_observations

        write_observations(self, path)

    def check(self, *args: Any, **kwargs: Any) -> tuple[Observations, pd.DataFrame]:
        """Good observations, and the rejected with reasons: see ``checks.check``."""
        from gapzoo.data.observations.checks import check

        return check(self, *args, **kwargs)


def standard_pressure(height: Any) -> np.ndarray:
    """Pressure (hPa) at a height (m) of the ICAO standard atmosphere, to 20 km."""
    low = np.minimum(np.asarray(height, float), 11000.0)
    high = np.maximum(np.asarray(height, float) - 11000.0, 0.0)
    ground = 1013.25 * (1 - 0.0065 * low / 288.15) ** 5.25588
    return ground * np.exp(-GRAVITY * high / (287.053 * 216.65))


_OPTIONAL = {"level": np.nan, "height": np.nan, "error": np.nan, "type": "", "station": ""}


def _complete(table: pd.DataFrame, level_kind: str) -> pd.DataFrame:
    """Columns in order and of the right type, with defaults; rows numbered from 0."""
    table = table.reset_index(drop=True).copy()
    for name, default in _OPTIONAL.items():
        if name not in table:
            table[name] = default
    missing = [name for name in COLUMNS if name not in table]
    if missing:
        raise GapzooError(f"observations lack the column '{missing[0]}'; columns: {COLUMNS}")
    units = table.get("units")
    table = table.loc[:, list(COLUMNS)]
    table["time"] = _times(table["time"])
    for name in NUMBERS:
        table[name] = _numbers(table[name], name)
    for name in ("variable", "type", "station"):
        table[name] = table[name].fillna("").astype(str)
    if units is not None:
        _convert(table, units)
    table["error"] = table["error"].fillna(default_errors(table, level_kind))
    return table


def _convert(table: pd.DataFrame, units: pd.Series) -> None:
    """Values and errors to SI units, in place; no units are SI units."""
    given = units.fillna("").astype(str)
    for (variable, name), rows in table.groupby(["variable", given]).groups.items():
        if name and variable in VARIABLES:
            to_si = conversion(str(variable), str(name), VARIABLES[str(variable)].units)
            table.loc[rows, "value"] = table.loc[rows, "value"] * to_si.scale + to_si.offset
            table.loc[rows, "error"] *= to_si.scale


def _times(column: pd.Series) -> pd.Series:
    found = pd.to_datetime(column, format="ISO8601", errors="coerce", utc=True).dt.tz_localize(None)
    _refuse(found.isna().to_numpy(), column, "time '{}' is no time; write 2006-01-31T12:00 (UTC)")
    return found.astype("datetime64[ns]")


def _numbers(column: pd.Series, name: str) -> pd.Series:
    found = pd.to_numeric(column, errors="coerce")
    _refuse((found.isna() & column.notna()).to_numpy(), column, name + " '{}' is no number")
    return found.astype(float)


def _validate(table: pd.DataFrame) -> None:
    column = {name: table[name].to_numpy() for name in COLUMNS}
    unknown = ~np.isin(column["variable"], list(VARIABLES))
    if unknown.any():
        name = column["variable"][unknown][0]
        _refuse(unknown, table["variable"], "no variable '{}'; " + nearest(name, VARIABLES))
    rules = (
        ("value", ~np.isfinite(column["value"]), "value {}; drop the row or give a number"),
        ("latitude", ~(np.abs(column["latitude"]) <= 90), "latitude {}; give -90 to 90"),
        (
            "longitude",
            ~((column["longitude"] >= -180) & (column["longitude"] <= 360)),
            "longitude {}; give -180 to 360",
        ),
        ("level", column["level"] <= 0, "level {}; give a positive one, or NaN for none"),
        ("level", np.isinf(column["level"]), "level {}; give a finite one, or NaN for none"),
        ("height", np.isinf(column["height"]), "height {}; give a finite one, or NaN for none"),
        (
            "error",
            ~((column["error"] > 0) & np.isfinite(column["error"])),
            "error {}; give a positive standard deviation",
        ),
    )
    for name, wrong, message in rules:
        _refuse(wrong, table[name], message)


def _refuse(wrong: np.ndarray, column: pd.Series, message: str) -> None:
    """Name the first row that is wrong."""
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        more = f" ({int(wrong.sum())} such rows)" if wrong.sum() > 1 else ""
        raise GapzooError(f"observation row {row}: {message.format(column.iloc[row])}{more}")
