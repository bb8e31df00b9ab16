"""Satellite tracks: profiles under a sun-synchronous polar orbit, as they fall in a window.

On a circular orbit of inclination i and period P, at the argument of latitude a = 2 pi t / P,

    sin(latitude) = sin(i) sin(a),    longitude = l_0 + atan2(cos(i) sin(a), cos(a)) - omega t,

with omega one turn a day, as the plane follows the sun. Soundings lie across the track out to
half the swath, every ``spacing`` along and across it.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from gapzoo.core import Channels, Grid
from gapzoo.core.grid import EARTH_RADIUS
from gapzoo.data.observations.networks import NETWORKS, as_numpy, soundings
from gapzoo.data.observations.networks.stations import _in_channels
from gapzoo.data.observations.operators import LinearObservationOperator

INCLINATION, PERIOD, DAY = math.radians(98.7), 101.4 * 60, 86400.0


@NETWORKS.register("satellite_tracks")
def satellite_tracks(
    grid: Grid,
    channels: Channels,
    generator: torch.Generator | int,
    variables: tuple[str, ...] = ("temperature",),
    satellites: int = 1,
    hours: float = 6.0,
    spacing: float = 5e5,
    swath: float = 2e6,
) -> LinearObservationOperator:
    """All levels of ``variables`` under ``satellites`` whose orbits start at random.

    Args:
        hours: length of the window.
        spacing, swath: metres.
    """
    rng = as_numpy(generator)
    tracks = [_track(rng, hours, spacing, swath) for _ in range(satellites)]
    latitude, longitude = (np.concatenate(part) for part in zip(*tracks, strict=True))
    names = list(variables)
    operator = soundings(grid, channels.select(names), latitude, longitude)
    return _in_channels(operator, channels, names, grid)


def ground_track(seconds: np.ndarray, node: float) -> tuple[np.ndarray, np.ndarray]:
    """Latitude and longitude (radians) under the satellite; ``node`` where it goes north at 0."""
    angle = 2 * np.pi * seconds / PERIOD
    latitude = np.arcsin(np.sin(INCLINATION) * np.sin(angle))
    turned = np.arctan2(np.cos(INCLINATION) * np.sin(angle), np.cos(angle))
    return latitude, node + turned - 2 * np.pi * seconds / DAY


def _track(
    rng: np.random.Generator, hours: float, spacing: float, swath: float
) -> tuple[np.ndarray, np.ndarray]:
    step = spacing / EARTH_RADIUS * PERIOD / (2 * np.pi)
    seconds = rng.uniform(0, PERIOD) + np.arange(0, hours * 3600, step)
    node = rng.uniform(0, 2 * np.pi)
    here, ahead = (_unit(*ground_track(seconds + dt, node)) for dt in (0.0, 1.0))
    across = np.cross(here, ahead)
    across /= np.linalg.norm(across, axis=1, keepdims=True)
    half = int(swath / 2 // spacing)
    angle = (np.arange(-half, half + 1) * spacing / EARTH_RADIUS)[:, None, None]
    point = (np.cos(angle) * here + np.sin(angle) * across).reshape(-1, 3)
    latitude = np.rad2deg(np.arcsin(point[:, 2].clip(-1, 1)))
    return latitude, np.rad2deg(np.arctan2(point[:, 1], point[:, 0])) % 360


def _unit(latitude: np.ndarray, longitude: np.ndarray) -> np.ndarray:
    """(N,3) unit vectors."""
    flat = np.cos(latitude)
    return np.stack([flat * np.cos(longitude), flat * np.sin(longitude), np.sin(latitude)], 1)
