"""Forecasts made elsewhere, scored as they lie on disk: the layout of WeatherBench 2.

A store (Zarr, or NetCDF; or a folder of several) has the protocol's variables by their
WeatherBench 2 names, in SI units, with the dimensions

    time (initial), prediction_timedelta, number, level, latitude, longitude

of which a deterministic forecast lacks ``number`` and a single-level variable ``level``. Nothing is
interpolated: what does not fit is refused, naming what differs, before anything is scored. One lead
of one initial time is in memory at a time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import xarray as xr
from torch import Tensor

from gapzoo.core import GapzooError, MemberGenerator, nearest
from gapzoo.evaluators.entry import ALIASES
from gapzoo.evaluators.standard import plain_units
from gapzoo.leaderboard.entries import FOLDER_ENTRY
from gapzoo.leaderboard.forecasts import FORECASTS, ForecastMethod
from gapzoo.leaderboard.methods import Setting
from gapzoo.leaderboard.protocol import Protocol

LEAD = "prediction_timedelta"
NETCDF = (".nc", ".nc4", ".netcdf")
TOLD = ("title", "source", "institution", "references", "license", "checkpoint", "model")
"""Global attributes that a row repeats."""


@FORECASTS.register(FOLDER_ENTRY)
class FolderForecast(ForecastMethod):
    """Forecasts of stores on disk.

    Args:
        setting: archive and world.
        protocol: initial times, leads and members that the stores must have.
        path: a store, or a folder of them.

    Raises:
        GapzooError: where there is no store, or one lacks or has otherwise what is scored.
    """

    def __init__(self, setting: Setting, protocol: Protocol, path: str) -> None:
        super().__init__(setting, protocol)
        self.path = Path(path)
        files = _stores(self.path)
        ascending = setting.world.grid.latitude[0] < setting.world.grid.latitude[-1]
        self.stores = {file: _standard(_open(file), file, ascending) for file in files}
        for file, store in self.stores.items():
            self._require(store, file)
        self.hash = _hash(files)

    def check(self, times: pd.DatetimeIndex) -> None:
        """Every initial time is in one of the stores."""
        there = {t for store in self.stores.values() for t in pd.DatetimeIndex(store["time"])}
        lost = [t for t in times if t not in there]
        if lost:
            raise GapzooError(
                f"{self.path} lacks {len(lost)} of {len(times)} initial times of protocol "
                f"'{self.protocol.name}', first {lost[0]:%Y-%m-%d %H:%M}; forecast from them too"
            )

    def run(
        self, initial: Tensor, time: pd.Timestamp, forcing: np.ndarray, generator: MemberGenerator
    ) -> Iterator[tuple[pd.Timestamp, Tensor]]:
        """See ForecastMethod; the members are the store's first ones, or its only one."""
        store = next(s for s in self.stores.values() if time in pd.DatetimeIndex(s["time"]))
        for step in range(1, self.steps + 1):
            later = time + pd.Timedelta(hours=step * self.protocol.hours)
            fields = store.sel(time=time, **{LEAD: (later - time).to_timedelta64()})
            states = self._states(fields, time, later)
            yield later, self.setting.world.normalise(states[None], pd.DatetimeIndex([later]))[0]

    def provenance(self) -> dict[str, Any]:
        """Where the forecasts came from, and a hash of all their bytes."""
        first = next(iter(self.stores.values()))
        told = {k: str(first.attrs[k]) for k in TOLD if k in first.attrs}
        return {"forecasts": self.path.name, "forecasts_sha256": self.hash, "told": told}

    def _states(self, fields: xr.Dataset, time: pd.Timestamp, later: pd.Timestamp) -> Tensor:
        """(M, C, H, W) in SI units."""
        found = []
        for channel in self.setting.world.channels:
            field = fields[channel.variable]
            if channel.level is not None:
                field = field.isel(level=_level_at(field, channel.level))
            field = field if "number" in field.dims else field.expand_dims("number")
            values = field.transpose("number", "latitude", "longitude").values
            found.append(values.astype(np.float32))
            if not np.isfinite(values).all():
                raise GapzooError(
                    f"{self.path}: '{channel.label}' from {time} at {later} is not finite"
                )
        return torch.from_numpy(np.stack(found, 1))

    def _require(self, store: xr.Dataset, file: Path) -> None:
        self._require_grid(store, file)
        self._require_channels(store, file)
        self._require_leads(store, file)
        wanted, there = self.protocol.members, store.sizes.get("number", 1)
        if 1 < there < wanted:
            raise GapzooError(
                f"{file}: 'number' has {there} members, protocol '{self.protocol.name}' has "
                f"{wanted}; give all of them, or one deterministic forecast without 'number'"
            )
        if there > wanted:
            self.stores[file] = store.isel(number=slice(wanted))

    def _require_grid(self, store: xr.Dataset, file: Path) -> None:
        grid = self.setting.world.grid
        axes = [np.asarray(store[name], float) for name in ("latitude", "longitude")]
        mine = [np.asarray(a) for a in (grid.latitude, grid.longitude)]
        for name, theirs, ours in zip(("latitude", "longitude"), axes, mine, strict=True):
            if len(theirs) != len(ours) or np.abs(theirs - ours).max() > 1e-3:
                raise GapzooError(
                    f"{file}: '{name}' has {len(theirs)} points from {theirs[0]:g} to "
                    f"{theirs[-1]:g}, {self.setting.world.name} {len(ours)} from {ours[0]:g} to "
                    f"{ours[-1]:g}; regrid the forecasts"
                )

    def _require_channels(self, store: xr.Dataset, file: Path) -> None:
        channels = self.setting.world.channels
        kind = store.attrs.get("level_kind", channels.level_kind)
        if kind != channels.level_kind:
            raise GapzooError(f"{file}: levels are of kind {kind}, not {channels.level_kind}")
        for channel in channels:
            if channel.variable not in store:
                known = map(str, store.data_vars)
                raise GapzooError(
                    f"{file} lacks '{channel.variable}'; {nearest(channel.variable, known)}"
                )
            field = store[channel.variable]
            units = field.attrs.get("units", channel.units)
            if plain_units(units) != plain_units(channel.units):
                raise GapzooError(
                    f"{file}: '{channel.variable}' is in {units}, not {channel.units}; convert it"
                )
            if (channel.level is None) == ("level" in field.dims):
                raise GapzooError(f"{file}: '{channel.variable}' has dimensions {field.dims}")
            if channel.level is not None and _level_at(field, channel.level) is None:
                levels = ", ".join(f"{v:g}" for v in np.asarray(field["level"], float))
                raise GapzooError(f"{file} lacks '{channel.label}'; its levels are {levels}")

    def _require_leads(self, store: xr.Dataset, file: Path) -> None:
        hours = pd.TimedeltaIndex(store[LEAD].values) / pd.Timedelta(hours=1)
        for step in range(1, self.steps + 1):
            lead = step * self.protocol.hours
            if lead not in hours:
                raise GapzooError(
                    f"{file}: '{LEAD}' lacks {lead} h; it has {hours.min():g} to {hours.max():g} h "
                    f"in {len(hours)} steps, protocol '{self.protocol.name}' every "
                    f"{self.protocol.hours} h to {self.steps * self.protocol.hours} h"
                )


def _stores(path: Path) -> list[Path]:
    """The stores of a path, sorted by name."""
    if path.is_file() or _is_zarr(path):
        return [path]
    inside = sorted(path.iterdir()) if path.is_dir() else []
    found = [p for p in inside if _is_zarr(p) or p.suffix in NETCDF]
    if not found:
        raise GapzooError(f"{path} is no Zarr or NetCDF store, nor a folder that holds one")
    return found


def _is_zarr(path: Path) -> bool:
    return any((path / name).exists() for name in ("zarr.json", ".zgroup", ".zmetadata"))


def _open(file: Path) -> xr.Dataset:
    engine = "zarr" if file.is_dir() else None
    try:
        return xr.open_dataset(file, engine=engine, chunks=None, decode_timedelta=True)  # type: ignore[arg-type]
    except (OSError, ValueError, KeyError) as error:
        raise GapzooError(f"{file} cannot be read: {' '.join(str(error).split())}") from None


def _standard(data: xr.Dataset, file: Path, ascending: bool) -> xr.Dataset:
    """Names of WeatherBench 2; latitude in the order of the world, longitude from 0 to 360."""
    data = data.rename({a: b for a, b in ALIASES.items() if a in data.dims and b not in data.dims})
    for name in ("time", LEAD, "latitude", "longitude"):
        if name not in data.dims or name not in data.coords:
            raise GapzooError(
                f"{file} has no dimension '{name}' with values among {dict(data.sizes)}"
            )
    east = np.asarray(data["longitude"], float) % 360
    data = data.assign_coords(longitude=east).sortby("longitude")
    return data.sortby("latitude", ascending=ascending)


def _level_at(field: xr.DataArray, level: float) -> int | None:
    found = np.flatnonzero(np.isclose(np.asarray(field["level"], float), level, rtol=1e-4))
    return int(found[0]) if len(found) else None


def _hash(files: list[Path]) -> str:
    """16 hex digits over the names and bytes of all files."""
    digest = hashlib.sha256()
    for store in files:
        inside = sorted(p for p in store.rglob("*") if p.is_file()) if store.is_dir() else [store]
        for file in inside:
            digest.update(str(file.relative_to(store.parent)).encode())
            with file.open("rb") as stream:
                for block in iter(lambda s=stream: s.read(1 << 20), b""):  # type: ignore[misc]
                    digest.update(block)
    return digest.hexdigest()[:16]
