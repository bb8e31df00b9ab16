"""Analyses and forecasts on disk, in the layout of WeatherBench 2, written while a run goes on.

One Zarr v3 store with a variable a WeatherBench 2 name, float32, and the dimensions

    time, prediction_timedelta, number, level, latitude, longitude

of which a forecast without leads (an analysis) lacks the second, one without members the third,
and a single-level variable ``level``. Levels are those of all variables together, NaN where a
variable has none. What is written at once, one valid time of all members, is one chunk a
variable; the coordinate ``written`` is set after all of them, so that a run killed at any moment
goes on where ``written`` says.
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import xarray as xr
import zarr

from gapzoo.core import VARIABLES, Channels, GapzooError
from gapzoo.core.world import World

States = np.ndarray | torch.Tensor
LEVEL_ATTRIBUTES = {
    "sigma": {
        "standard_name": "atmosphere_sigma_coordinate",
        "long_name": "sigma: pressure over surface_pressure",
        "units": "1",
    },
    "pressure": {"standard_name": "air_pressure", "long_name": "pressure", "units": "hPa"},
}
_AXES = {
    "latitude": {"standard_name": "latitude", "units": "degrees_north", "axis": "Y"},
    "longitude": {"standard_name": "longitude", "units": "degrees_east", "axis": "X"},
    "number": {"standard_name": "realization", "units": "1"},
    "prediction_timedelta": {"standard_name": "forecast_period", "long_name": "lead time"},
}
_HOURS = {"units": "hours", "dtype": "int64"}
_TIME = {"units": "hours since 1900-01-01", "calendar": "proleptic_gregorian", "dtype": "int64"}


class ForecastStore:
    """A store that fills as a run goes on; an existing one of the same layout is continued.

    Args:
        path: folder of the store, such as ``forecast.zarr``.
        world: grid and name.
        times: initial times, or the valid times of analyses.
        leads: hours of the leads; None for analyses.
        members: how many, or their numbers; None for single states, without ``number``.
        channels: what the states hold; the world's where None.
        attributes: global attributes to add: the checkpoint, the protocol, ...

    Raises:
        GapzooError: where ``path`` holds something else.
    """

    def __init__(
        self,
        path: Path | str,
        world: World,
        times: pd.DatetimeIndex,
        leads: Sequence[int] | None = None,
        members: int | Sequence[int] | None = None,
        *,
        channels: Channels | None = None,
        attributes: Mapping[str, Any] | None = None,
    ) -> None:
        self.path, self.world, self.times = Path(path), world, pd.DatetimeIndex(times)
        self.channels = channels or world.channels
        self.leads = None if leads is None else tuple(int(h) for h in leads)
        self.members = tuple(range(members)) if isinstance(members, int) else members
        self.levels = sorted({c.level for c in self.channels if c.level is not None})
        layout = self._layout()
        if (self.path / "zarr.json").exists():
            self._refuse_other(layout)
        else:
            self._create(layout, attributes or {})
        self._root = zarr.open_group(self.path, mode="r+")

    def write(
        self, time: pd.Timestamp, lead: int | None, states: np.ndarray | torch.Tensor
    ) -> None:
        """Write the states of one valid time.

        Args:
            time: initial time, or the valid time of an analysis.
            lead: hours, one of the store's leads; None for analyses.
            states: (M, C, H, W), or (C, H, W) in a store without members, SI units.

        Raises:
            GapzooError: where time or lead is not the store's, the shape differs, or a value is
                not finite; nothing is written then.
        """
        at = self._position(time, lead)
        values = self._checked(states, time, lead)
        written: Any = self._root["written"]
        written[at] = 0
        for name in dict.fromkeys(c.variable for c in self.channels):
            array: Any = self._root[name]
            array[at] = self._block(name, values)
        written[at] = 1

    def written(self, time: pd.Timestamp) -> list[int]:
        """The leads, in hours, that are there of one initial time (``[0]`` of an analysis)."""
        marks = np.asarray(self._root["written"][self._position(time, None, any_lead=True)])  # type: ignore[index]
        leads = np.atleast_1d(self.leads if self.leads is not None else 0)
        return [int(lead) for lead in leads[np.atleast_1d(marks) == 1]]

    def complete(self, time: pd.Timestamp) -> bool:
        """Whether every lead of one initial time is there."""
        return len(self.written(time)) == len(self.leads or (0,))

    def open(self) -> xr.Dataset:
        """The store as xarray reads it, from disk as values are asked for."""
        return _open(self.path)

    def _position(self, time: pd.Timestamp, lead: int | None, any_lead: bool = False) -> tuple:
        row = self.times.get_indexer(pd.DatetimeIndex([time]))[0]
        if row < 0:
            raise GapzooError(f"{self.path} has no time {time}; give it when the store is made")
        if self.leads is None or any_lead:
            if lead is not None:
                raise GapzooError(f"{self.path} holds analyses; write them with lead None")
            return (int(row),)
        if lead not in self.leads:
            raise GapzooError(f"{self.path} has no lead {lead} h; its leads are {self.leads}")
        return int(row), self.leads.index(lead)

    def _checked(self, states: Any, time: pd.Timestamp, lead: int | None) -> np.ndarray:
        tensor = states.detach().cpu() if isinstance(states, torch.Tensor) else states
        values = np.asarray(tensor, np.float32)
        front = () if self.members is None else (len(self.members),)
        expected = (*front, len(self.channels), *self.world.grid.shape)
        if values.shape != expected:
            raise GapzooError(f"states of shape {values.shape}; {self.path} takes {expected}")
        finite = np.isfinite(values).all((-2, -1)).reshape(-1, len(self.channels)).all(0)
        if not finite.all():
            label = self.channels[int(np.flatnonzero(~finite)[0])].label
            raise GapzooError(f"'{label}' of {time}, lead {lead} h, is not finite; not written")
        return values

    def _block(self, name: str, values: np.ndarray) -> np.ndarray:
        """What one variable's array takes: ([M], [L], H, W)."""
        found = self.channels.of(name)
        if self.channels[found[0]].level is None:
            return values[..., found[0], :, :]
        shape = (*values.shape[:-3], len(self.levels), *values.shape[-2:])
        block = np.full(shape, np.nan, np.float32)
        at = [self.levels.index(self.channels[i].level) for i in found]
        block[..., at, :, :] = values[..., found, :, :]
        return block

    def _layout(self) -> xr.Dataset:
        """Coordinates and what tells this store from another."""
        coords: dict[str, Any] = {"time": self.times.values}
        if self.leads is not None:
            coords["prediction_timedelta"] = np.array(self.leads, "timedelta64[h]").astype(
                "timedelta64[ns]"
            )
        if self.members is not None:
            coords["number"] = np.array(self.members, np.int64)
        if self.levels:
            coords["level"] = np.array(self.levels, np.float64)
        coords["latitude"] = np.array(self.world.grid.latitude)
        coords["longitude"] = np.array(self.world.grid.longitude)
        identity = {
            "Conventions": "CF-1.11",
            "world": self.world.name,
            "level_kind": self.channels.level_kind,
            "channels": self.channels.labels,
        }
        return xr.Dataset(coords=coords, attrs=identity)

    def _refuse_other(self, layout: xr.Dataset) -> None:
        with _open(self.path) as old:
            for key, value in layout.attrs.items():
                if old.attrs.get(key) != value:
                    self._refuse(key)
            for name in {*map(str, layout.coords), *map(str, old.sizes)}:
                same = name in old.coords and name in layout.coords
                if not same or not np.array_equal(old[name].values, layout[name].values):
                    self._refuse(name)

    def _refuse(self, what: str) -> None:
        raise GapzooError(
            f"{self.path} holds another run: its '{what}' differs; give another path or remove it"
        )

    def _create(self, layout: xr.Dataset, attributes: Mapping[str, Any]) -> None:
        """Lay the store out beside its place, then move it there whole."""
        part = self.path.with_name(self.path.name + ".part")
        shutil.rmtree(part, ignore_errors=True)
        self._describe(layout).assign_attrs(attributes).to_zarr(
            part, zarr_format=3, consolidated=False
        )
        root = zarr.open_group(part, mode="r+")
        front = tuple(n for n in ("time", "prediction_timedelta") if n in layout.coords)
        shape = tuple(layout.sizes[n] for n in front)
        _array(root, "written", "int8", shape, (1,) * len(shape), front, 0)
        for name in dict.fromkeys(c.variable for c in self.channels):
            self._variable(root, layout, name, front)
        with warnings.catch_warnings():  # zarr's, that others may not read the shortcut
            warnings.simplefilter("ignore", zarr.errors.ZarrUserWarning)
            zarr.consolidate_metadata(part)
        part.replace(self.path)

    def _describe(self, layout: xr.Dataset) -> xr.Dataset:
        stamp = "time" if self.leads is None else "forecast_reference_time"
        layout["time"].attrs.update(standard_name=stamp)
        layout["time"].encoding.update(_TIME)
        for name in [n for n in _AXES if n in layout.coords]:
            layout[name].attrs.update(_AXES[name])
        if self.leads is not None:
            layout["prediction_timedelta"].encoding.update(_HOURS)
        if self.levels:
            layout["level"].attrs.update(LEVEL_ATTRIBUTES[self.channels.level_kind])
            layout["level"].attrs.update(positive="down", axis="Z")
        return layout

    def _variable(self, root: Any, layout: xr.Dataset, name: str, front: tuple) -> None:
        first = self.channels[self.channels.of(name)[0]]
        own = ("number", *(("level",) if first.level is not None else ()), "latitude", "longitude")
        dims = (*front, *(n for n in own if n in layout.coords))
        shape = tuple(layout.sizes[n] for n in dims)
        chunks = (*(1,) * len(front), *shape[len(front) :])
        array = _array(root, name, "float32", shape, chunks, dims, float("nan"))
        known = VARIABLES.get(name)
        array.attrs.update({"units": first.units, "coordinates": "written"})
        if known:
            array.attrs["standard_name"] = known.standard_name


def _open(path: Path) -> xr.Dataset:
    coder = xr.coders.CFDatetimeCoder(time_unit="us")  # nanoseconds end with the year 2262
    return xr.open_zarr(path, chunks=None, decode_timedelta=True, decode_times=coder)


def _array(
    root: Any, name: str, kind: str, shape: tuple, chunks: tuple, dims: tuple, fill: float
) -> Any:
    return root.create_array(
        name, shape=shape, dtype=kind, chunks=chunks, dimension_names=dims, fill_value=fill
    )
