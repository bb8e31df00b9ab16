"""Forecast and truth in one layout before they are scored: names, latitudes, longitudes, levels.

Nothing is read and nothing interpolated; what does not fit is refused.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import xarray as xr

from gapzoo.core import Channel, GapzooError, Grid
from gapzoo.evaluators.align import ALIASES, LEAD

TOLERANCE = 1e-4
"""Relative difference of levels that are the same."""


def standard(data: Any, lead: bool = False, whole: bool = True) -> Any:
    """Names of WeatherBench 2, latitude ascending, longitude 0 to 360.

    Args:
        data: xr.Dataset or xr.DataArray.
        lead: give it a time and a lead of zero where it has none.
        whole: refuse it without latitude and longitude.
    """
    data = data.rename({a: b for a, b in ALIASES.items() if a in data.dims and b not in data.dims})
    for name in ("latitude", "longitude"):
        if whole and name not in data.dims:
            raise GapzooError(f"no dimension '{name}' among {sorted(map(str, data.dims))}")
    if lead and "time" not in data.dims:
        data = data.expand_dims("time")
    if lead and LEAD not in data.dims:
        data = data.expand_dims({LEAD: [np.timedelta64(0, "ns")]})
    return _eastward(_northward(data))


def _northward(data: Any) -> Any:
    if "latitude" not in data.dims:
        return data
    latitude = data["latitude"].values
    if np.all(np.diff(latitude) > 0):
        return data
    return data.isel(latitude=slice(None, None, -1)).sortby("latitude")


def _eastward(data: Any) -> Any:
    if "longitude" not in data.dims:
        return data
    longitude = data["longitude"].values
    if longitude.min() >= 0 and np.all(np.diff(longitude) > 0):
        return data
    return data.assign_coords(longitude=longitude % 360).sortby("longitude")


def common_grid(forecast: xr.Dataset, truth: xr.Dataset) -> Grid:
    """The grid of both; raises where they differ."""
    axes = [(d["latitude"].values, d["longitude"].values) for d in (forecast, truth)]
    grids = [Grid(tuple(latitude), tuple(longitude)) for latitude, longitude in axes]
    if not grids[0].matches(grids[1]):
        raise GapzooError(
            f"forecast grid {grids[0].shape} and truth grid {grids[1].shape} differ; "
            "regrid one to the other"
        )
    return grids[0]


def level_kind(forecast: xr.Dataset, truth: xr.Dataset) -> str:
    """``sigma`` or ``pressure``: as the attributes say, else by the size of the levels."""
    for data in (forecast, truth):
        if kind := data.attrs.get("level_kind"):
            return str(kind)
    return "sigma" if "level" in forecast and float(forecast["level"].max()) <= 1 else "pressure"


def shared(forecast: xr.Dataset, truth: xr.Dataset) -> list[str]:
    """Variables of both; raises where there is none, or one differs in levels, kind or units."""
    names = [str(n) for n in forecast.data_vars if n in truth.data_vars]
    names = [n for n in names if "latitude" in forecast[n].dims]
    if not names:
        raise GapzooError(
            f"no variable in common: forecast {sorted(map(str, forecast.data_vars))}, "
            f"truth {sorted(map(str, truth.data_vars))}"
        )
    kinds = [d.attrs.get("level_kind") for d in (forecast, truth)]
    levelled = any("level" in forecast[name].dims for name in names)
    if levelled and None not in kinds and kinds[0] != kinds[1]:
        raise GapzooError(
            f"forecast on {kinds[0]} levels, truth on {kinds[1]} levels; give both on one kind"
        )
    for name in names:
        _require_levels(with_own_levels(forecast, name), with_own_levels(truth, name))
        _require_units(forecast[name], truth[name])
    return names


def with_own_levels(data: xr.Dataset, name: str) -> xr.DataArray:
    """A variable at the levels it has by the store's list of channels, if there is one."""
    field, labels = data[name], data.attrs.get("channels")
    if "level" not in field.dims or labels is None:
        return field
    parsed = [Channel.parse(str(label)) for label in np.atleast_1d(labels)]
    own = [c.level for c in parsed if c.variable == name and c.level is not None]
    at = [i for i, x in enumerate(field["level"].values) if np.isclose(own, x).any()]
    return field if not own or len(at) == field.sizes["level"] else field.isel(level=at)


def _require_levels(forecast: xr.DataArray, truth: xr.DataArray) -> None:
    if ("level" in forecast.dims) != ("level" in truth.dims):
        raise GapzooError(f"{forecast.name}: only one of forecast and truth has levels; select one")
    if "level" in forecast.dims and (lost := _lost(forecast, truth)):
        raise GapzooError(f"{forecast.name}: the truth has no level {lost}; select others")


def _lost(forecast: xr.DataArray, other: xr.DataArray) -> list[float]:
    """Levels of the forecast that another field has not."""
    there = other["level"].values.astype(float)
    wanted = sorted(forecast["level"].values.tolist())
    return [x for x in wanted if not np.isclose(there, x, rtol=TOLERANCE).any()]


def require_reference(what: str, reference: xr.DataArray, forecast: xr.DataArray) -> None:
    """Refuse a climatology, edges or a mask of other levels or another grid than a forecast's."""
    both = [name for name in ("latitude", "longitude") if name in reference.coords]
    for name in both:
        mine, own = forecast[name].values, reference[name].values
        if mine.shape != own.shape or not np.allclose(mine, own, atol=1e-3):
            raise GapzooError(f"{what}: other {name}s than the forecast's; regrid one to the other")
    levelled = "level" in forecast.dims and "level" in reference.dims
    if levelled and (lost := _lost(forecast, reference)):
        raise GapzooError(f"{what}: no level {lost} of the forecast; select others")


def land_on(grid: Grid, land: Any) -> Any:
    """A land fraction that may bring its own coordinates, (H, W) on the grid of the scores."""
    if not isinstance(land, xr.DataArray):
        return land
    own = standard(land.isel({d: 0 for d in land.dims if d not in ("latitude", "longitude")}))
    if not Grid(tuple(own["latitude"].values), tuple(own["longitude"].values)).matches(grid):
        raise GapzooError(f"the land mask has another grid than {grid.shape}; regrid it")
    return own.transpose("latitude", "longitude").values


def _require_units(forecast: xr.DataArray, truth: xr.DataArray) -> None:
    first, second = (d.attrs.get("units") for d in (forecast, truth))
    if first is not None and second is not None and plain_units(first) != plain_units(second):
        raise GapzooError(
            f"{forecast.name}: the forecast is in {first}, the truth in {second}; convert one"
        )


def plain_units(units: str) -> str:
    """``m/s``, ``m s**-1`` and ``m s-1`` as one."""
    text = str(units).translate(str.maketrans("*^.", "   "))
    for per in ("s", "kg"):
        text = re.sub(rf"/\s*{per}\b", f" {per}-1", text)
    return "".join(text.split())
