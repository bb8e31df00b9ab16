"""The horizontal grid: latitudes, longitudes and exact cell areas."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from gapzoo.core.errors import GapzooError

EARTH_RADIUS = 6.371229e6
"""Mean radius of the Earth in metres."""


@dataclass(frozen=True)
class Grid:
    """A latitude-longitude grid, periodic in longitude, of any latitude order.

    Args:
        latitude: (H,) degrees north, strictly monotonic, each within -90..90.
        longitude: (W,) degrees east, evenly spaced over the whole circle, ascending.

    Raises:
        GapzooError: where a latitude or longitude breaks these rules.
    """

    latitude: tuple[float, ...]
    longitude: tuple[float, ...]

    def __post_init__(self) -> None:
        lat, lon = np.asarray(self.latitude, float), np.asarray(self.longitude, float)
        object.__setattr__(self, "latitude", tuple(float(x) for x in lat))
        object.__setattr__(self, "longitude", tuple(float(x) for x in lon))
        steps = np.diff(lat)
        if lat.size < 2 or not (np.all(steps > 0) or np.all(steps < 0)) or np.abs(lat).max() > 90:
            raise GapzooError("latitude must be monotonic within -90..90; sort it or drop doubles")
        if lon.size < 2 or not np.allclose(np.diff(lon), 360 / lon.size, atol=1e-3):
            raise GapzooError("longitude must be ascending, even and global; sort or regrid it")

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W)."""
        return len(self.latitude), len(self.longitude)

    @cached_property
    def area_weights(self) -> np.ndarray:
        """(H,) float64 cell areas, mean 1: sin of the upper minus sin of the lower edge.

        Edges lie midway between latitudes, the outermost at the poles.
        """
        lat = np.asarray(self.latitude)
        middle = (lat[1:] + lat[:-1]) / 2
        pole = 90.0 if lat[-1] > lat[0] else -90.0
        edges = np.concatenate([[-pole], middle, [pole]])
        area = np.abs(np.diff(np.sin(np.deg2rad(edges))))
        return area / area.mean()

    def matches(self, other: Grid, tolerance: float = 1e-3) -> bool:
        """Whether both grids have the same points, to ``tolerance`` degrees."""
        return self.shape == other.shape and all(
            np.allclose(a, b, atol=tolerance)
            for a, b in ((self.latitude, other.latitude), (self.longitude, other.longitude))
        )
