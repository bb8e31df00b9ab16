"""Regions as weights: the share of each cell's area that lies in the region.

For a cell with edges phi_0 < phi_1 and a band a..b in latitude the share is

    (sin min(phi_1, b) - sin max(phi_0, a)) / (sin phi_1 - sin phi_0), at least 0,

and the like in longitude, so that tropics, northern and southern extratropics add up to the globe
to the last digit on any grid, however coarse. (WeatherBench 2 takes whole cells by their centres;
on grids of 1.5 degrees and finer the difference is small.)
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gapzoo.core import GapzooError, Grid, nearest

BANDS = {
    "global": (-90.0, 90.0),
    "tropics": (-20.0, 20.0),
    "northern_extratropics": (20.0, 90.0),
    "southern_extratropics": (-90.0, -20.0),
}
"""Latitude bands by name, degrees north."""
BOXES = {
    "nino34": (-5.0, 5.0, 190.0, 240.0),
    "north_atlantic_sector": (20.0, 80.0, 270.0, 40.0),
    "europe": (35.0, 75.0, 347.5, 42.5),
    "north_america": (25.0, 60.0, 240.0, 285.0),
    "north_atlantic": (25.0, 65.0, 290.0, 340.0),
    "north_pacific": (25.0, 60.0, 145.0, 230.0),
    "east_asia": (25.0, 60.0, 102.5, 150.0),
    "australia_new_zealand": (-45.0, -12.5, 120.0, 175.0),
    "arctic": (60.0, 90.0, 0.0, 360.0),
    "antarctic": (-90.0, -60.0, 0.0, 360.0),
}
"""South, north, west, east, degrees: Nino3.4 (Trenberth 1997), the NAO's sector (Hurrell 1995),
and the regions of ECMWF's scorecards as in WeatherBench 2."""


def region_weights(name: str, grid: Grid, land: Any = None) -> np.ndarray:
    """(H,W) float64 weights, 0 to 1, of a named region.

    Args:
        name: one of ``BANDS`` or ``BOXES``, ``land``, ``sea``, or ``box:SOUTH,NORTH,WEST,EAST``
            in degrees.
        grid: the grid of forecast and truth.
        land: (H,W) land area fraction, for ``land`` and ``sea``.

    Raises:
        GapzooError: where the name is unknown, or land is missing, off the grid or outside 0..1.
    """
    if name in BANDS:
        return box(grid, *BANDS[name])
    if name in BOXES:
        return box(grid, *BOXES[name])
    if name.startswith("box:"):
        return box(grid, *_edges(name))
    if name not in ("land", "sea"):
        raise GapzooError(f"no region '{name}'; {nearest(name, [*BANDS, *BOXES, 'land', 'sea'])}")
    if land is None:
        raise GapzooError(f"region '{name}' needs land=..., the land fraction on the grid")
    share = np.asarray(land, np.float64)
    if share.shape != grid.shape or not (share.min() >= 0 and share.max() <= 1):
        raise GapzooError(f"land is {share.shape}; it must be {grid.shape} and within 0..1")
    return share if name == "land" else 1 - share


def _edges(name: str) -> tuple[float, float, float, float]:
    try:
        south, north, west, east = (float(x) for x in name.removeprefix("box:").split(","))
    except ValueError:
        raise GapzooError(f"region '{name}'; write box:SOUTH,NORTH,WEST,EAST in degrees") from None
    return south, north, west, east


def box(
    grid: Grid, south: float, north: float, west: float = 0.0, east: float = 360.0
) -> np.ndarray:
    """(H,W) float64 share of each cell within a box, degrees; it may cross the date line."""
    if not -90 <= south < north <= 90:
        raise GapzooError(f"box from {south} to {north} N; south must be below north, in -90..90")
    if not 0 < east - west <= 360:
        east += 360 * (1 + (west - east) // 360)
    rows, columns = _latitude_share(grid, south, north), _longitude_share(grid, west, east)
    return np.outer(rows, columns)


def _latitude_share(grid: Grid, south: float, north: float) -> np.ndarray:
    lat = np.asarray(grid.latitude)
    middle = (lat[1:] + lat[:-1]) / 2
    pole = 90.0 if lat[-1] > lat[0] else -90.0
    edges = np.concatenate([[-pole], middle, [pole]])
    low, high = np.minimum(edges[1:], edges[:-1]), np.maximum(edges[1:], edges[:-1])
    return _overlap(*(np.sin(np.deg2rad(x)) for x in (low, high, south, north)))


def _longitude_share(grid: Grid, west: float, east: float) -> np.ndarray:
    lon = np.asarray(grid.longitude)
    half, turns = 180 / lon.size, np.arange(-2, 3) * 360
    low, high = lon - half + turns[:, None], lon + half + turns[:, None]
    return np.minimum(_overlap(low, high, west, east).sum(0), 1.0)


def _overlap(low: Any, high: Any, start: Any, stop: Any) -> np.ndarray:
    return np.maximum(np.minimum(high, stop) - np.maximum(low, start), 0) / (high - low)
