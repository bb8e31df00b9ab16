"""Data sets laid out as the real ones are, with values known at every point.

    x(t, level, lat, lon) = base + slope * level + 3 cos(lat) + cos(2 pi t / year) + noise

``weatherbench2`` writes what its Zarr stores have: names, dimension order (longitude before
latitude where coarse), attributes, chunks of many steps, Zarr v2 with consolidated metadata,
levels as integers in hPa, sea surface temperature missing over land.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from gapzoo.core import Grid
from gapzoo.data.regrid import grid_named

PROFILES = {
    "geopotential": ("m**2 s**-2", "z", 1.5e5, -140.0, 300.0),
    "temperature": ("K", "t", 215.0, 0.07, 2.0),
    "u_component_of_wind": ("m s**-1", "u", 20.0, -0.02, 4.0),
    "v_component_of_wind": ("m s**-1", "v", 0.0, 0.0, 4.0),
    "specific_humidity": ("kg kg**-1", "q", 1e-4, 1e-5, 1e-4),
}
SURFACE = {
    "2m_temperature": ("K", "t2m", 287.0, 2.0),
    "mean_sea_level_pressure": ("Pa", "msl", 101000.0, 400.0),
    "10m_u_component_of_wind": ("m s**-1", "u10", 2.0, 2.0),
    "10m_v_component_of_wind": ("m s**-1", "v10", 0.0, 2.0),
    "surface_pressure": ("Pa", "sp", 98000.0, 400.0),
    "total_precipitation_6hr": ("m", "tp", 1e-3, 1e-4),
    "total_precipitation_24hr": ("m", "tp", 4e-3, 4e-4),
    "toa_incident_solar_radiation": ("J m**-2", "tisr", 1e6, 1e3),
    "sea_ice_cover": ("(0 - 1)", "siconc", 0.2, 0.0),
}
STANDARD = {
    "geopotential": "geopotential",
    "temperature": "air_temperature",
    "u_component_of_wind": "eastward_wind",
    "v_component_of_wind": "northward_wind",
    "specific_humidity": "specific_humidity",
    "mean_sea_level_pressure": "air_pressure_at_mean_sea_level",
    "sea_ice_cover": "sea_ice_area_fraction",
    "toa_incident_solar_radiation": "toa_incoming_shortwave_flux",
}
LEVELS = (50, 100, 150, 200, 250, 300, 400, 500, 600, 700, 850, 925, 1000)


def land(grid: Grid) -> np.ndarray:
    """(H, W) a third of the globe."""
    rows = np.abs(np.asarray(grid.latitude)) < 60
    return (rows[:, None] & (np.asarray(grid.longitude) < 150)).astype(np.float32)


def values(times: pd.DatetimeIndex, grid: Grid, base: float, noise: float, seed: int) -> np.ndarray:
    """(T, H, W) float32 of a surface variable."""
    rng = np.random.default_rng(seed)
    season = np.cos(2 * np.pi * np.asarray(times.dayofyear + times.hour / 24) / 365.25)
    shape = noise * 3 * np.cos(np.deg2rad(grid.latitude))[:, None] * np.ones(grid.shape)
    field = base + shape + noise * season[:, None, None]
    return (field + noise * rng.standard_normal(field.shape, np.float32)).astype(np.float32)


def weatherbench2(
    path: Path,
    grid: str = "64x32",
    start: str = "2000-01-01",
    steps: int = 8,
    levels: tuple[int, ...] = LEVELS,
    profiles: tuple[str, ...] = tuple(PROFILES),
    surface: tuple[str, ...] = tuple(SURFACE),
    chunk: int = 100,
) -> xr.Dataset:
    """Write a store and return what is in it, in gapzoo's order (T, L, H, W)."""
    times, points = pd.date_range(start, periods=steps, freq="6h"), grid_named(grid)
    data = xr.Dataset(coords={"time": times})
    data = data.assign_coords(
        latitude=np.array(points.latitude), longitude=np.array(points.longitude)
    )
    if profiles:
        data = data.assign_coords(level=np.array(levels, np.int32))
    for seed, name in enumerate(profiles):
        units, short, base, slope, noise = PROFILES[name]
        columns = [
            values(times, points, base + slope * level, noise, 100 * seed + level)
            for level in levels
        ]
        dims = ("time", "level", "latitude", "longitude")
        data[name] = dims, np.stack(columns, 1), _attrs(name, units, short)
    plane = ("time", "latitude", "longitude")
    for seed, name in enumerate(surface):
        units, short, base, noise = SURFACE[name]
        data[name] = (
            plane,
            values(times, points, base, noise, 7000 + seed),
            _attrs(name, units, short),
        )
    sst = np.where(land(points) == 1, np.nan, values(times, points, 285.0, 1.0, 9000))
    data["sea_surface_temperature"] = plane, sst.astype(np.float32), _attrs("sst", "K", "sst")
    flat = ("latitude", "longitude")
    data["land_sea_mask"] = flat, land(points), _attrs("lsm", "(0 - 1)", "lsm")
    data["geopotential_at_surface"] = flat, 500.0 * land(points), _attrs("z", "m**2 s**-2", "z")
    _write(path, data, grid, chunk)
    return data


def _attrs(name: str, units: str, short: str) -> dict[str, str]:
    attrs = {"long_name": name.replace("_", " "), "short_name": short, "units": units}
    return attrs | ({"standard_name": STANDARD[name]} if name in STANDARD else {})


def _write(path: Path, data: xr.Dataset, grid: str, chunk: int) -> None:
    if grid == "1440x721":
        laid = data.isel(latitude=slice(None, None, -1))
        laid = laid.assign_coords(latitude=laid.latitude.astype(np.float32))
    else:
        laid = data.transpose("time", "level", "longitude", "latitude", missing_dims="ignore")
    encoding: dict = {}
    for name, array in laid.data_vars.items():
        sizes = [min(chunk, n) if d == "time" else n for d, n in array.sizes.items()]
        encoding[name] = {"chunks": tuple(sizes)}
    units = {"units": "hours since 1959-01-01", "calendar": "proleptic_gregorian", "dtype": "int64"}
    encoding["time"] = units
    laid.to_zarr(path, zarr_format=2, consolidated=True, encoding=encoding)
