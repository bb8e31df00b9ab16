"""One variable of a gridded data set, read step by step in the order and units of gapzoo."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from gapzoo.data.units import Conversion

ROLES = ("time", "level", "latitude", "longitude")


@dataclass(frozen=True)
class Field:
    """A variable, read as it is asked for.

    Args:
        array: not yet read.
        dims: roles, of ``ROLES``, to the array's dimensions; some may lack.
        levels: positions of the levels; None for a variable without.
        order: whether latitude is turned round, and by how much longitude is rolled.
        convert: to SI units.
    """

    array: xr.DataArray
    dims: dict[str, str]
    levels: list[int] | None
    order: tuple[bool, int]
    convert: Conversion

    def read(self, positions: np.ndarray | None = None) -> np.ndarray:
        """(T, L, H, W) float32 in SI units, NaN where missing; L = 1 without levels.

        Args:
            positions: (T,) steps of the data set; the first alone where None.
        """
        array = self._window(positions)
        present = [self.dims[r] for r in ROLES if self.dims.get(r) in array.dims]
        array = array.isel({d: 0 for d in array.dims if d not in present})
        array = array.transpose(*present)
        if array.chunks is not None:  # this may be a thread or a dask worker already
            array = array.compute(scheduler="synchronous")
        values = array.values
        for axis, role in enumerate(ROLES[:2]):
            if self.dims.get(role) not in array.dims:
                values = np.expand_dims(values, axis)
        return self._finished(values)

    def _window(self, positions: np.ndarray | None) -> xr.DataArray:
        array, time, level = self.array, self.dims.get("time"), self.dims.get("level")
        if time in array.dims:
            array = array.isel({time: _slice(positions)})
        if self.levels is not None and level in array.dims:
            whole = self.levels == list(range(array.sizes[level]))
            array = array if whole else array.isel({level: _slice(np.array(self.levels))})
        return array

    def _finished(self, values: np.ndarray) -> np.ndarray:
        flip, roll = self.order
        values = np.roll(values[..., ::-1, :] if flip else values, roll, -1)
        if self.convert.changes:
            values = values * self.convert.scale + self.convert.offset
        return values.astype(np.float32)


def _slice(positions: np.ndarray | None) -> Any:
    """A slice where positions are even and ascending, which reads less than a list of them."""
    if positions is None:
        return slice(0, 1)
    positions = np.asarray(positions)
    steps = np.unique(np.diff(positions))
    if len(positions) == 0 or len(steps) > 1 or (len(steps) and steps[0] <= 0):
        return positions
    return slice(int(positions[0]), int(positions[-1]) + 1, int(steps[0]) if len(steps) else 1)
