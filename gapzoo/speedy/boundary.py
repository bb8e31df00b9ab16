"""Boundary conditions that come with ``jcm``: orography, land mask, climatologies, SST anomalies.

SST on a day is the climatology's day-of-year value plus the observed monthly anomaly, the latter
linear between mid-months. Anomalies beyond 15 K are bad coastal values and count as zero; the
anomaly enters over open water only, weighted by what sea ice leaves.
"""

from __future__ import annotations

import importlib.resources
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
import xarray as xr

from gapzoo.core import GapzooError, Grid

BAD_ANOMALY = 15.0
"""|SST anomaly| in K above which a value is a coastal artefact of the file."""


def boundary_file(name: str) -> str:
    """Path of one of jcm's packaged T30 files, such as ``clim/forcing.nc``."""
    try:
        return str(importlib.resources.files("jcm") / "data" / "bc" / "t30" / name)
    except ModuleNotFoundError:
        raise GapzooError("SPEEDY needs the package jcm; pip install 'gapzoo[speedy]'") from None


def _periodic(field: xr.DataArray) -> xr.DataArray:
    """Append a row at each pole (its neighbour's zonal mean) and a column at each end."""
    south, north = (field.isel(lat=[row]).mean("lon") for row in (0, -1))
    south, north = south.assign_coords(lat=[-90.0]), north.assign_coords(lat=[90.0])
    rows = [edge.expand_dims(lon=field.lon).transpose(*field.dims) for edge in (south, north)]
    tall = xr.concat([rows[0], field, rows[1]], dim="lat")
    last, first = tall.isel(lon=[-1]), tall.isel(lon=[0])
    last, first = last.assign_coords(lon=last.lon - 360), first.assign_coords(lon=first.lon + 360)
    return xr.concat([last, tall, first], dim="lon")


def to_grid(field: xr.DataArray, grid: Grid) -> np.ndarray:
    """Bilinear interpolation of (..., lat, lon) to a grid, periodic in longitude."""
    wide = _periodic(field.sortby("lat"))
    lat, lon = xr.DataArray(list(grid.latitude), dims="lat"), list(grid.longitude)
    points = wide.interp(lat=lat, lon=xr.DataArray(lon, dims="lon"))
    return points.transpose(..., "lat", "lon").values.astype(np.float32)


@dataclass(frozen=True)
class Ocean:
    """Observed SST of 1979-2013 on a grid, and its variants for experiments.

    Args:
        grid: the model's grid.
        offset: K added everywhere over the sea, for a changed climate.
    """

    grid: Grid
    offset: float = 0.0

    @cached_property
    def _monthly(self) -> tuple[pd.DatetimeIndex, np.ndarray]:
        with xr.open_dataset(boundary_file("anom/sea_surface_temperature_anomaly.nc")) as ds:
            anomaly = ds.ssta.where(np.abs(ds.ssta) < BAD_ANOMALY, 0.0).load()
            months = pd.DatetimeIndex(ds.time.values).to_period("M").to_timestamp()
        return months + pd.Timedelta(days=14), to_grid(anomaly, self.grid)

    @cached_property
    def _climatology(self) -> tuple[np.ndarray, np.ndarray]:
        with xr.open_dataset(boundary_file("clim/forcing.nc")) as ds:
            sst, ice = to_grid(ds.sst, self.grid), to_grid(ds.icec, self.grid)
        return sst, np.clip(ice, 0.0, 1.0)

    @property
    def period(self) -> tuple[pd.Timestamp, pd.Timestamp]:
        """From (inclusive) and until (exclusive) when an anomaly is known."""
        months = self._monthly[0]
        return months[0] - pd.Timedelta(days=14), months[-1] + pd.Timedelta(days=17)

    def anomaly(self, times: pd.DatetimeIndex) -> np.ndarray:
        """(T, H, W) SST anomaly in K.

        Raises:
            GapzooError: where a time lies outside the observed period.
        """
        first, last = self.period
        outside = times[(times < first) | (times >= last)]
        if len(outside):
            raise GapzooError(
                f"no SST anomaly for {outside[0]:%Y-%m-%d}; they cover {first:%Y-%m-%d} to "
                f"{last - pd.Timedelta(days=1):%Y-%m-%d}; take other dates or sst 'climatology'"
            )
        months, values = self._monthly
        return _between(_days(months), values, _days(times))

    def climatology(self, times: pd.DatetimeIndex) -> tuple[np.ndarray, np.ndarray]:
        """(T, H, W) climatological SST in K and sea-ice fraction for the days of the year."""
        sst, ice = self._climatology
        middle = np.arange(-1, 13) * 365.25 / 12 + 15.2
        wrap = np.r_[11, np.arange(12), 0]
        day = np.asarray(times.dayofyear - 1 + times.hour / 24.0, float)
        return _between(middle, sst[wrap], day) + self.offset, _between(middle, ice[wrap], day)

    def sst(self, times: pd.DatetimeIndex, anomalies: np.ndarray | None = None) -> np.ndarray:
        """(T, H, W) SST in K: climatology plus the observed anomaly, or plus ``anomalies``."""
        mean, ice = self.climatology(times)
        if anomalies is None:
            anomalies = self.anomaly(times)
        return mean + (1.0 - ice) * anomalies


def land_fraction(grid: Grid) -> np.ndarray:
    """(H, W), 0 to 1."""
    with xr.open_dataset(boundary_file("clim/terrain.nc")) as ds:
        return np.clip(to_grid(ds.lsm, grid), 0, 1)


def _days(times: pd.DatetimeIndex) -> np.ndarray:
    return (times - pd.Timestamp("1970-01-01")) / pd.Timedelta(days=1)


def _between(knots: np.ndarray, values: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Linear interpolation of (N, H, W) along its first axis, constant beyond the ends."""
    knots, at = np.asarray(knots, float), np.asarray(at, float)
    right = np.clip(np.searchsorted(knots, at, side="right"), 1, len(knots) - 1)
    weight = np.clip((at - knots[right - 1]) / (knots[right] - knots[right - 1]), 0.0, 1.0)
    weight = weight[:, None, None]
    return ((1 - weight) * values[right - 1] + weight * values[right]).astype(np.float32)
