"""Conservative regridding: first order, on exact cell edges, with missing values masked.

A cell of ``Grid`` reaches half-way to its neighbours, the outermost rows to the poles. The area
that cell i of the target and cell j of the source share is a product,

    a_ij = |sin(top) - sin(bottom)| of the common latitudes x common longitudes,

so the overlap matrix is the Kronecker product of one sparse matrix in latitude and one in
longitude, and both are applied in turn. With m_j = 1 where x_j is known and 0 where it is missing,

    y_i = sum_j a_ij m_j x_j / sum_j a_ij m_j,

and sum_i y_i (sum_j a_ij m_j) = sum_j m_j x_j (sum_i a_ij): the integral over the known area is
kept to rounding. A target cell is missing where less than ``least`` of its area is known.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import sparse

from gapzoo.core import GapzooError, Grid


def grid_named(name: str) -> Grid:
    """A grid by its name, south to north and from 0 degrees east.

    Args:
        name: ``64x32`` (longitudes x latitudes, even spacing); an odd number of latitudes has
            points at both poles, as in ``240x121`` and ``1440x721``, an even one has none.
            ``gaussian-64x32`` has Gaussian latitudes.

    Raises:
        GapzooError: for any other text.
    """
    kind, _, size = name.rpartition("-")
    width, _, height = size.partition("x")
    if kind not in ("", "gaussian") or not (width.isdigit() and height.isdigit()):
        raise GapzooError(f"grid '{name}'; write it as 64x32, 240x121 or gaussian-64x32")
    rows, columns = int(height), int(width)
    longitude = 360 / columns * np.arange(columns)
    return Grid(tuple(_latitudes(rows, gaussian=kind == "gaussian")), tuple(longitude))


def _latitudes(rows: int, gaussian: bool) -> np.ndarray:
    if gaussian:
        return np.rad2deg(np.arcsin(np.polynomial.legendre.leggauss(rows)[0]))
    if rows % 2:
        return np.linspace(-90, 90, rows)
    return -90 + 180 / rows * (np.arange(rows) + 0.5)


@dataclass(frozen=True)
class Regridder:
    """Carries fields from one grid to another.

    Args:
        source: grid of what comes in.
        target: grid of what goes out.
        least: smallest known share of a target cell, 0 to 1; a cell below it is missing. The
            integral is kept exactly at 0, where any known part is enough.
    """

    source: Grid
    target: Grid
    least: float = 0.0

    def __call__(self, fields: np.ndarray) -> np.ndarray:
        """Fields (..., H, W), NaN where missing, to (..., H', W') float32."""
        flat = np.asarray(fields).reshape(-1, *self.source.shape)
        out = np.stack([self._one(field) for field in flat])
        return out.reshape(*fields.shape[:-2], *self.target.shape).astype(np.float32)

    @cached_property
    def latitude(self) -> sparse.csr_array:
        """(H', H) differences of sin(latitude) that rows share."""
        ours, theirs = (np.sort(np.sin(np.deg2rad(_rows(g))), 1) for g in self._grids)
        return _overlap(ours, theirs)

    @cached_property
    def longitude(self) -> sparse.csr_array:
        """(W', W) radians that columns share."""
        ours, theirs = (np.deg2rad(_columns(g)) for g in self._grids)
        turns = [_overlap(ours, theirs + turn * 2 * np.pi) for turn in range(-2, 3)]
        return sparse.csr_array(sum(turns[1:], turns[0]))

    @property
    def _grids(self) -> tuple[Grid, Grid]:
        return self.target, self.source

    @cached_property
    def _area(self) -> np.ndarray:
        return self._integrate(np.ones(self.source.shape))

    def _integrate(self, field: np.ndarray) -> np.ndarray:
        return (self.longitude @ (self.latitude @ field).T).T

    def _one(self, field: np.ndarray) -> np.ndarray:
        field = field.astype(np.float64)
        missing = np.isnan(field)
        if not missing.any():
            return self._integrate(field) / self._area
        known = self._integrate(~missing * 1.0)
        total = self._integrate(np.where(missing, 0.0, field))
        enough = (known > 1e-12 * self._area) & (known >= self.least * self._area * (1 - 1e-12))
        return np.where(enough, total / np.where(enough, known, 1.0), np.nan)


def _rows(grid: Grid) -> np.ndarray:
    """(H, 2) edges of the rows in degrees north; the outermost lie at the poles."""
    lat = np.asarray(grid.latitude)
    middle = (lat[1:] + lat[:-1]) / 2
    pole = 90.0 if lat[-1] > lat[0] else -90.0
    edges = np.concatenate([[-pole], middle, [pole]])
    return np.stack([edges[:-1], edges[1:]], 1)


def _columns(grid: Grid) -> np.ndarray:
    """(W, 2) edges of the columns in degrees east, ascending; the first centre within 0..360."""
    width = grid.shape[1]
    centre = np.asarray(grid.longitude)[0] % 360 + 360 / width * np.arange(width)
    return np.stack([centre - 180 / width, centre + 180 / width], 1)


def _overlap(ours: np.ndarray, theirs: np.ndarray) -> sparse.csr_array:
    """(N', N) lengths that the intervals (N', 2) and (N, 2) share."""
    low = np.maximum(ours[:, None, 0], theirs[None, :, 0])
    high = np.minimum(ours[:, None, 1], theirs[None, :, 1])
    return sparse.csr_array(np.maximum(high - low, 0.0))
