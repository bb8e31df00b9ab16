"""Localisation: tapers that damp sampled covariances of far-apart places and levels.

Gaspari & Cohn (1999, eq. 4.10) with a half-width c = sqrt(10/3) L, so that near zero the taper is
the Gaussian exp(-d^2 / 2 L^2); it vanishes beyond 2 c = 3.65 L. Distances on the sphere are
chords, for which the taper is positive definite at any L (arcs are 1 % longer at 3000 km).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from gapzoo.core import Channels, GapzooError, Grid
from gapzoo.core.grid import EARTH_RADIUS

HALF_WIDTH = math.sqrt(10 / 3)
"""Half-width c of the taper in lengths L."""


def gaspari_cohn(distance: Tensor, length: float) -> Tensor:
    """The taper at ``distance`` (any shape); ``length`` is the Gaussian's standard deviation.

    An infinite length is no localisation: 1 everywhere.

    Raises:
        GapzooError: where the length is not positive.
    """
    if not length > 0:
        raise GapzooError(f"localisation length {length}; give a positive one, or inf for none")
    r = distance / (length * HALF_WIDTH)
    near = (((-0.25 * r + 0.5) * r + 0.625) * r - 5 / 3) * r**2 + 1
    s = r.clamp(min=1.0, max=2.0)
    far = ((((s / 12 - 0.5) * s + 0.625) * s + 5 / 3) * s - 5) * s + 4 - 2 / (3 * s)
    return torch.where(r <= 1, near, far).clamp(0.0, 1.0)


def sphere_points(latitude: Tensor, longitude: Tensor) -> Tensor:
    """(N,3) float64 unit vectors of places in degrees."""
    lat, lon = (torch.deg2rad(a.double()) for a in (latitude, longitude))
    return torch.stack([lat.cos() * lon.cos(), lat.cos() * lon.sin(), lat.sin()], dim=-1)


def chord(a: Tensor, b: Tensor) -> Tensor:
    """(n,m) metres between unit vectors (n,3) and (m,3)."""
    return EARTH_RADIUS * (2 - 2 * a @ b.T).clamp(min=0).sqrt()


def channel_taper(channels: Channels, vertical: float = math.inf, cross: float = 1.0) -> Tensor:
    """(C,C) float32 taper between channels.

    Args:
        vertical: length in the logarithm of the level; single-level variables count as surface.
        cross: factor between different variables, 0 to 1.
    """
    known = [c.level for c in channels if c.level is not None]
    surface = (1.0 if channels.level_kind == "sigma" else 1000.0) if known else 1.0
    height = torch.tensor([math.log(c.level or surface) for c in channels], dtype=torch.float64)
    taper = gaspari_cohn((height[:, None] - height[None]).abs(), vertical)
    names = np.array([c.variable for c in channels])
    same = torch.from_numpy(names[:, None] == names[None])
    return torch.where(same, taper, cross * taper).float()


class Locality(Protocol):
    """Which state points and observations have a covariance, block by block.

    ``channel_taper`` (C,C), or None for 1 throughout, is the part between channels.
    """

    channel_taper: Tensor | None

    def state_tiles(self, operator: Any, points: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Grid points (T,), their near observations (n,), taper (T,n); together all points."""

    def observation_tiles(self, operator: Any) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Observations (T,), those near them (n,), taper (T,n); together all observations."""


class Everywhere:
    """No localisation."""

    channel_taper: Tensor | None = None

    def state_tiles(self, operator: Any, points: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """One block of all ``points`` grid points."""
        count = len(operator)
        yield torch.arange(points), torch.arange(count), torch.ones(1, count)

    def observation_tiles(self, operator: Any) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """One block of all observations."""
        rows = torch.arange(len(operator))
        yield rows, rows, torch.ones(1, len(rows))


class Sphere:
    """Gaspari-Cohn on the sphere, by compact tiles of the grid so that far ones are left out.

    Args:
        length: horizontal, metres; ``inf`` for none.
        tail: share (0 to 1) of the taper that is 1 at every distance.
        vertical, cross: of ``channel_taper``.
        tile: grid points on a tile's side.
    """

    def __init__(
        self,
        grid: Grid,
        channels: Channels,
        *,
        length: float,
        tail: float = 0.0,
        vertical: float = math.inf,
        cross: float = 1.0,
        tile: int = 8,
    ) -> None:
        self.grid, self.length, self.tail, self.tile = grid, length, tail, tile
        plain = math.isinf(vertical) and cross == 1.0
        self.channel_taper = None if plain else channel_taper(channels, vertical, cross)
        lat, lon = torch.tensor(grid.latitude), torch.tensor(grid.longitude)
        self.points = sphere_points(*(a.flatten() for a in torch.meshgrid(lat, lon, indexing="ij")))

    def state_tiles(self, operator: Any, points: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Tiles of the grid; ``points`` must be H*W."""
        if points != len(self.points):
            raise GapzooError(f"{points} grid points but localisation on {len(self.points)}")
        places = sphere_points(operator.latitude.cpu(), operator.longitude.cpu())
        for tile in self._tiles():
            near, taper = self._near(self.points[tile], places)
            yield tile, near, taper

    def observation_tiles(self, operator: Any) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Observations by the tile that they lie in."""
        every = sphere_points(operator.latitude.cpu(), operator.longitude.cpu())
        places, inverse = every.unique(dim=0, return_inverse=True)
        home = (places @ self.points.T).argmax(1)
        for tile in self._tiles():
            inside = torch.isin(home, tile)
            if inside.any():
                own = torch.nonzero(inside[inverse]).squeeze(1)
                near, taper = self._near(places[inside], every)
                row = torch.cumsum(inside, 0)[inverse[own]] - 1
                yield own, near, taper[row]

    def taper(self, a: Tensor, b: Tensor) -> Tensor:
        """(n,m) float32 taper between unit vectors (n,3) and (m,3)."""
        near = gaspari_cohn(chord(a, b), self.length)
        return (self.tail + (1 - self.tail) * near).float()

    def _near(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        """Positions in ``b`` that have a covariance with any of ``a``, and the taper."""
        taper = self.taper(a, b)
        near = torch.nonzero((taper > 0).any(0)).squeeze(1)
        return near, taper[:, near]

    def _tiles(self) -> Iterator[Tensor]:
        height, width = self.grid.shape
        flat = torch.arange(height * width).unflatten(0, (height, width))
        for rows in flat.split(self.tile, dim=0):
            yield from (block.flatten() for block in rows.split(self.tile, dim=1))
