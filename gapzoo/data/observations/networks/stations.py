"""Stations on land: radiosonde-like ones that observe columns, and surface stations.

Places are drawn on land, in proportion to the land within each grid cell, more densely on the
northern side as the real networks are, and no nearer to each other than ``apart`` where that
leaves enough of them.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from gapzoo.core import Channels, GapzooError, Grid
from gapzoo.core.grid import EARTH_RADIUS
from gapzoo.data.observations.networks import NETWORKS, as_numpy, soundings
from gapzoo.data.observations.operators import LinearObservationOperator

SURFACE = (
    "surface_pressure",
    "2m_temperature",
    "10m_u_component_of_wind",
    "10m_v_component_of_wind",
)


@NETWORKS.register("radiosondes")
def radiosondes(
    grid: Grid,
    channels: Channels,
    generator: torch.Generator | int,
    land: Tensor | np.ndarray | None = None,
    count: int = 416,
    northern: float = 3.0,
    apart: float = 2e5,
) -> LinearObservationOperator:
    """Every channel at ``count`` places on land.

    Args:
        land: (H,W) share of land, 0 to 1.
        northern: density north of 20 N over that elsewhere.
        apart: least distance in metres, where there is room.
    """
    latitude, longitude = land_places(grid, land, as_numpy(generator), count, northern, apart)
    return soundings(grid, channels, latitude, longitude)


@NETWORKS.register("surface_stations")
def surface_stations(
    grid: Grid,
    channels: Channels,
    generator: torch.Generator | int,
    land: Tensor | np.ndarray | None = None,
    count: int = 1000,
    northern: float = 3.0,
    apart: float = 5e4,
) -> LinearObservationOperator:
    """Surface pressure, and 2 m temperature and 10 m wind where they are channels."""
    latitude, longitude = land_places(grid, land, as_numpy(generator), count, northern, apart)
    names = [c.variable for c in channels if c.variable in SURFACE]
    if not names:
        raise GapzooError(f"surface stations observe {', '.join(SURFACE)}; add one as a channel")
    operator = soundings(grid, channels.select(names), latitude, longitude)
    return _in_channels(operator, channels, names, grid)


def _in_channels(
    operator: LinearObservationOperator, channels: Channels, names: list[str], grid: Grid
) -> LinearObservationOperator:
    """Move an operator on the channels ``names`` to the whole set."""
    size = grid.shape[0] * grid.shape[1]
    place = torch.tensor([channels.index(name) for name in channels.select(names).labels])
    index = place[operator.index // size] * size + operator.index % size
    parts = {**vars(operator), "index": index, "channel": place[operator.channel]}
    return LinearObservationOperator(**{**parts, "shape": (len(channels), *grid.shape)})


def land_places(
    grid: Grid,
    land: Tensor | np.ndarray | None,
    rng: np.random.Generator,
    count: int,
    northern: float,
    apart: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Latitudes and longitudes (count,) of places drawn on land.

    Raises:
        GapzooError: without a land mask of the grid's shape, or without land in it.
    """
    share = np.zeros(grid.shape) if land is None else np.asarray(land, float)
    if share.shape != grid.shape or not share.sum() > 0:
        raise GapzooError(f"stations need land=(H,W), the share of land on the {grid.shape} grid")
    latitude = np.asarray(grid.latitude)
    weight = share * (grid.area_weights * np.where(latitude > 20, northern, 1.0))[:, None]
    cell = rng.choice(share.size, size=20 * count, p=weight.ravel() / weight.sum())
    row, column = np.unravel_index(cell, grid.shape)
    south, north = _edges(latitude)
    sines = rng.uniform(np.sin(np.deg2rad(south[row])), np.sin(np.deg2rad(north[row])))
    width = 360 / grid.shape[1]
    east = np.asarray(grid.longitude)[column] + width * rng.uniform(-0.5, 0.5, len(cell))
    lat, lon = np.rad2deg(np.arcsin(sines)), east % 360
    keep = _spaced(lat, lon, count, apart)
    return lat[keep], lon[keep]


def _edges(latitude: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Southern and northern edge of each row."""
    middle = (latitude[1:] + latitude[:-1]) / 2
    pole = 90.0 if latitude[-1] > latitude[0] else -90.0
    edges = np.concatenate([[-pole], middle, [pole]])
    return np.minimum(edges[1:], edges[:-1]), np.maximum(edges[1:], edges[:-1])


def _spaced(lat: np.ndarray, lon: np.ndarray, count: int, apart: float) -> np.ndarray:
    """The first ``count`` candidates at least ``apart`` from those kept; then any others."""
    phi, lam = np.deg2rad(lat), np.deg2rad(lon)
    point = np.stack([np.cos(phi) * np.cos(lam), np.cos(phi) * np.sin(lam), np.sin(phi)], 1)
    limit = (apart / EARTH_RADIUS) ** 2
    keep: list[int] = []
    left: list[int] = []
    for i in range(len(point)):
        near = keep and ((point[keep] - point[i]) ** 2).sum(1).min() < limit
        (left if near else keep).append(i)
        if len(keep) == count:
            return np.array(keep)
    return np.array([*keep, *left[: count - len(keep)]])
