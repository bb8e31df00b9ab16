"""One field of an archive, of a store of analyses or forecasts, or of any CF data set.

What is not said is taken where there is no choice: the only level, the last time, the first lead.
Of an ensemble it is the mean, unless a member or its spread is asked for.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
import zarr

from gapzoo.core import VARIABLES, Channel, GapzooError, Grid, nearest
from gapzoo.data.archive import FORMAT, Archive
from gapzoo.data.cf import Dataset, Reading
from gapzoo.data.opening import open_dataset

LEAD = "prediction_timedelta"
MEMBERS = ("number", "member", "realization", "ensemble", "sample")


@dataclass(frozen=True)
class Pick:
    """Which field.

    Args:
        variable: WeatherBench 2 name, or with its level, such as ``temperature@850``.
        level: hPa or sigma.
        time: initial or valid time; the last where None.
        lead: hours of a forecast; the first where None.
        member: its number, ``mean`` or ``spread``; the mean where None.
    """

    variable: str
    level: float | None = None
    time: str | pd.Timestamp | None = None
    lead: float | None = None
    member: str | int | None = None

    def __post_init__(self) -> None:
        channel = Channel.parse(self.variable)
        if channel.level is not None:
            object.__setattr__(self, "variable", channel.variable)
            object.__setattr__(self, "level", channel.level)


@dataclass(frozen=True)
class Picked:
    """A field and what it is.

    Args:
        values: (H, W), SI units.
        grid: of it.
        label: such as ``temperature@850``.
        units: SI.
        time: valid time; None of a field without one.
        lead: hours; None but of a forecast.
        member: number, ``mean`` or ``spread``; None without an ensemble.
        land: (H, W) share of land; None where it is not known.
        where: path.
    """

    values: np.ndarray
    grid: Grid
    label: str
    units: str
    time: pd.Timestamp | None
    where: str
    lead: float | None = None
    member: str | None = None
    land: np.ndarray | None = None

    @property
    def title(self) -> str:
        """Variable, member, valid time and lead in one line."""
        variable, _, level = self.label.partition("@")
        parts = [variable.replace("_", " ") + (f" at {level}" if level else "")]
        if self.member is not None:
            named = self.member if self.member in ("mean", "spread") else f"member {self.member}"
            parts.append(f"ensemble {named}" if named == self.member else named)
        if self.time is not None:
            parts.append(f"{self.time:%Y-%m-%d %H:%M}")
        return ", ".join(parts) + (f" (+{self.lead:g} h)" if self.lead is not None else "")

    def minus(self, other: Picked) -> Picked:
        """The difference; raises GapzooError where the two do not go together."""
        if not self.grid.matches(other.grid):
            raise GapzooError(
                f"{self.where} has a grid of {self.grid.shape}, {other.where} one of "
                f"{other.grid.shape} or other points; regrid one of them"
            )
        land = self.land if self.land is not None else other.land
        return replace(self, values=self.values - other.values, land=land)


def pick(path: str | Path, wanted: Pick) -> Picked:
    """Read one field.

    Args:
        path: an archive, a store, a file or a URL that xarray opens.
        wanted: which field.

    Raises:
        GapzooError: where there is no such field, naming what there is.
    """
    if _is_archive(str(path)):
        return _of_archive(Archive(path), wanted)
    return _of_store(str(path), wanted)


def _is_archive(path: str) -> bool:
    try:
        return zarr.open_group(path, mode="r").attrs.get("format") == FORMAT
    except (FileNotFoundError, OSError, ValueError):
        return False


def _of_archive(archive: Archive, wanted: Pick) -> Picked:
    where, names = str(archive.path), archive.attributes["static_channels"]
    land = archive.static("land_sea_mask") if "land_sea_mask" in names else None
    if wanted.variable in names:
        values = archive.static(wanted.variable)
        units = _units(wanted.variable)
        return Picked(values, archive.grid, wanted.variable, units, None, where, land=land)
    row = _row(archive.times, wanted.time, where)
    kind, at = "forcing", [wanted.variable]
    if wanted.variable not in archive.forcing_channels:
        kind, at = "state", [_label(archive, wanted)]
    of = archive.forcing_channels if kind == "forcing" else archive.channels.labels
    values = archive.read(kind, np.array([row]), [of.index(at[0])])[0, 0]
    units, time = _units(wanted.variable), archive.times[row]
    return Picked(values, archive.grid, at[0], units, time, where, land=land)


def _label(archive: Archive, wanted: Pick) -> str:
    variables = dict.fromkeys(c.variable for c in archive.channels)
    known = [*variables, *archive.forcing_channels, *archive.attributes["static_channels"]]
    if wanted.variable not in variables:
        raise GapzooError(
            f"{archive.path} has no '{wanted.variable}'; {nearest(wanted.variable, known)}"
        )
    levels = [c.level for c in archive.channels if c.variable == wanted.variable]
    level = _level([x for x in levels if x is not None], wanted, str(archive.path))
    return Channel(wanted.variable, level).label


def _level(levels: list[float], wanted: Pick, where: str) -> float | None:
    """The level of a variable that was asked for, or the only one."""
    if not levels:
        return None
    if wanted.level is None and len(levels) == 1:
        return levels[0]
    listed = ", ".join(f"{x:g}" for x in levels)
    if wanted.level is None:
        raise GapzooError(f"{where}: '{wanted.variable}' has levels; take one of {listed}")
    near = [x for x in levels if np.isclose(x, wanted.level, rtol=1e-4)]
    if not near:
        raise GapzooError(
            f"{where} has no level {wanted.level:g} of '{wanted.variable}'; it has {listed}"
        )
    return near[0]


def _row(times: pd.DatetimeIndex, wanted: str | pd.Timestamp | None, where: str) -> int:
    """The position of a time; the last where None."""
    if wanted is None:
        return len(times) - 1
    try:
        time = pd.Timestamp(wanted)
    except ValueError:
        raise GapzooError(f"'{wanted}' is no time; write it as 2010-01-31T12") from None
    exact = np.flatnonzero(times == time)
    if len(exact):
        return int(exact[0])
    near = times[int(np.abs(np.asarray((times - time) / pd.Timedelta(hours=1))).argmin())]
    raise GapzooError(
        f"{where} has no time {time:%Y-%m-%d %H:%M}; the nearest is {near:%Y-%m-%d %H:%M}, it "
        f"covers {times[0]:%Y-%m-%d} to {times[-1]:%Y-%m-%d}"
    )


def _of_store(where: str, wanted: Pick) -> Picked:
    coder = xr.coders.CFDatetimeCoder(time_unit="us")
    options = {"decode_times": coder} if where.rstrip("/").endswith(".zarr") else {}
    data = open_dataset(where, options=options)
    select: dict[str, Any] = {}
    time, lead = _when(data, wanted, where, select)
    member = _member(data, wanted, where, select)
    levels = None
    found = Dataset(data.isel({k: v for k, v in select.items() if k != "member"}), where, Reading())
    name = found.find(wanted.variable)
    if found.on_levels(wanted.variable) and "level" in found.data[name].dims:
        kept = _level([float(x) for x in np.sort(found.levels)], wanted, where)
        levels = None if kept is None else [kept]
    values = _members(found, wanted.variable, levels, member, select.get("member"))
    label = Channel(wanted.variable, levels[0] if levels else None).label
    if not np.isfinite(values).any():
        raise GapzooError(f"{where}: '{label}' at {time} is missing throughout; not yet written?")
    land = found.field("land_sea_mask").read()[0, 0] if found.has("land_sea_mask") else None
    return Picked(
        values, found.grid, label, _units(wanted.variable), time, where, lead, member, land
    )


def _when(
    data: xr.Dataset, wanted: Pick, where: str, select: dict[str, Any]
) -> tuple[pd.Timestamp | None, float | None]:
    """Valid time and lead; what they stand at goes into ``select``."""
    time: pd.Timestamp | None = None
    if "time" in data.dims:
        times = pd.DatetimeIndex(data["time"].values)
        select["time"] = _row(times, wanted.time, where)
        time = times[select["time"]]
    if LEAD not in data.dims:
        return time, None
    hours = _hours(data[LEAD])
    lead = float(hours[0]) if wanted.lead is None else wanted.lead
    if lead not in hours:
        listed = ", ".join(f"{h:g}" for h in hours)
        raise GapzooError(f"{where} has no lead of {lead:g} h; its leads are {listed} h")
    select[LEAD] = int(np.flatnonzero(hours == lead)[0])
    return (None if time is None else time + pd.Timedelta(hours=lead)), lead


def _hours(leads: xr.DataArray) -> np.ndarray:
    """Leads in hours, decoded or as numbers with units."""
    if np.issubdtype(leads.dtype, np.timedelta64):
        return leads.values / np.timedelta64(1, "h")
    unit = str(leads.attrs.get("units", "hours"))
    return np.asarray(leads.values * (pd.Timedelta(1, unit.rstrip("s")) / pd.Timedelta(hours=1)))


def _member(data: xr.Dataset, wanted: Pick, where: str, select: dict[str, Any]) -> str | None:
    """What is taken of the ensemble; None without one. A number goes into ``select``."""
    dim = next((d for d in MEMBERS if d in data.dims), None)
    if dim is None:
        if wanted.member is not None:
            raise GapzooError(f"{where} has no members; leave 'member' away")
        return None
    asked = "mean" if wanted.member is None else str(wanted.member)
    if asked in ("mean", "spread"):
        select["member"] = dim
        return asked
    numbers = [str(n) for n in data[dim].values.tolist()]
    if asked not in numbers:
        raise GapzooError(
            f"{where} has no member {asked}; it has {numbers[0]} to {numbers[-1]}, mean and spread"
        )
    select[dim] = numbers.index(asked)
    return asked


def _members(
    found: Dataset, name: str, levels: list[float] | None, member: str | None, dim: str | None
) -> np.ndarray:
    """(H, W) of one member, or of all of them together."""
    if dim is None:
        return found.field(name, levels).read()[0, 0]
    fields = np.stack(
        [
            replace(found, data=found.data.isel({dim: n})).field(name, levels).read()[0, 0]
            for n in range(found.data.sizes[dim])
        ]
    )
    if member == "spread" and len(fields) < 2:
        raise GapzooError(f"{found.where} has one member and so no spread; take member 'mean'")
    return fields.mean(0) if member == "mean" else fields.std(0, ddof=1)


def _units(variable: str) -> str:
    known = VARIABLES.get(variable)
    return known.units if known else "1"
