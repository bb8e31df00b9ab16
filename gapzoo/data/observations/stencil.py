"""Interpolation stencils: which grid points and levels an observed place takes, and how much.

Horizontal: bilinear in latitude and longitude. Longitude is periodic. Between the outermost row
and the pole the second row is the same row on the other side of the pole (longitude + 180), where
the components of a horizontal vector point the other way.
Vertical: linear in the logarithm of the level.
"""

from __future__ import annotations

import numpy as np

from gapzoo.core import GapzooError, Grid

_TINY = 1e-9


def horizontal_stencil(
    grid: Grid, latitude: np.ndarray, longitude: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Four grid points around each place.

    Args:
        grid: the grid, latitude in either order.
        latitude, longitude: (N,) degrees north and east (any longitude convention).

    Returns:
        Flat grid-point indices (N,4), weights (N,4) that sum to 1, and (N,4) +1, or -1 for
        points beyond a pole.
    """
    rows, row_weights, crossed = _rows(np.asarray(grid.latitude), np.asarray(latitude, float))
    east = np.asarray(longitude, float)[:, None] + np.where(crossed, 180.0, 0.0)
    columns, column_weights = _columns(np.asarray(grid.longitude), east)
    index = rows[:, :, None] * grid.shape[1] + columns
    weights = row_weights[:, :, None] * column_weights
    sign = np.broadcast_to(np.where(crossed, -1.0, 1.0)[:, :, None], index.shape)
    return index.reshape(-1, 4), weights.reshape(-1, 4), sign.reshape(-1, 4)


def _rows(rows: np.ndarray, latitude: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two rows a place: indices (N,2), weights (N,2), and whether the row lies beyond a pole."""
    count, order = len(rows), np.argsort(rows)
    south_to_north = rows[order]
    extended = np.concatenate([[-180 - south_to_north[0]], south_to_north])
    extended = np.append(extended, 180 - south_to_north[-1])
    lower = np.clip(np.searchsorted(extended, latitude, "right") - 1, 0, count)
    width = extended[lower + 1] - extended[lower]
    upper_weight = (latitude - extended[lower]) / np.where(width > 0, width, 1.0)
    pair = np.stack([lower, lower + 1], axis=1)
    weights = np.stack([1 - upper_weight, upper_weight], axis=1)
    return order[np.clip(pair - 1, 0, count - 1)], weights, (pair == 0) | (pair == count + 1)


def _columns(columns: np.ndarray, longitude: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two grid longitudes a place (...,2) and their weights; periodic."""
    count = len(columns)
    place = np.mod(longitude - columns[0], 360.0) * count / 360.0
    west = np.floor(place + _TINY).astype(np.int64)
    east_weight = np.maximum(place - west, 0.0)
    index = np.stack([west % count, (west + 1) % count], axis=-1)
    return index, np.stack([1 - east_weight, east_weight], axis=-1)


def vertical_stencil(
    levels: np.ndarray, wanted: np.ndarray, beyond: str = "refuse"
) -> tuple[np.ndarray, np.ndarray]:
    """Two levels around each wanted one, linear in the logarithm.

    Args:
        levels: (L,) positive levels in any order.
        wanted: (N,) positive levels of the same kind.
        beyond: ``refuse`` a level outside the outermost ones, or take the ``nearest`` of them.

    Returns:
        Indices into ``levels`` (N,2) and weights (N,2).

    Raises:
        GapzooError: for a level outside, naming it and its row.
    """
    order = np.argsort(levels)
    known, place = np.log(levels[order]), np.log(wanted)
    outside = ~((place >= known[0] - 1e-6) & (place <= known[-1] + 1e-6))
    if beyond == "refuse" and outside.any():
        row = int(np.flatnonzero(outside)[0])
        raise GapzooError(
            f"observation {row}: level {wanted[row]:g} lies outside {levels.min():g} to "
            f"{levels.max():g}; drop it with check(), or pass beyond='nearest'"
        )
    position = np.interp(place, known, np.arange(len(known), dtype=float))
    lower = np.minimum(np.floor(position + _TINY).astype(np.int64), max(len(known) - 2, 0))
    upper = np.minimum(lower + 1, len(known) - 1)
    share = np.maximum(position - lower, 0.0)
    return order[np.stack([lower, upper], 1)], np.stack([1 - share, share], 1)
