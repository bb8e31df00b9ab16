"""From a data set's field to what an archive holds: on its grid, in SI units, nowhere missing.

Missing values are masked in regridding and then filled: by a number, alike at all times (land
under sea surface temperature: its anomaly is then zero), or ``from_above``, the next level above
(pressure levels below the ground). A value that is still missing is refused by name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import pandas as pd

from gapzoo.core import GapzooError
from gapzoo.data.boundary import Period, between, covers, days_of
from gapzoo.data.calendars import Axis
from gapzoo.data.cf import Dataset
from gapzoo.data.field import Field
from gapzoo.data.regrid import Regridder

FILL: dict[str, float | str] = {"sea_surface_temperature": 273.15, "sea_ice_cover": 0.0}
BLOCK_BYTES = 2**28
"""Most of a data set that is read at a time."""


@dataclass(frozen=True)
class Preparation:
    """What is done to every field.

    Args:
        regridder: to the archive's grid; None where it is the data set's.
        fill: variable to a number or ``from_above``; ``FILL`` has the defaults.
    """

    regridder: Regridder | None = None
    fill: Mapping[str, float | str] = field(default_factory=dict)

    def of(self, data: Dataset, name: str, levels: Sequence[float] | None = None) -> Prepared:
        """A variable of a data set, prepared."""
        return Prepared(data.field(name, levels), name, levels, self, data.where)


@dataclass(frozen=True)
class Prepared:
    """A field that is read prepared."""

    field: Field
    name: str
    levels: Sequence[float] | None
    preparation: Preparation
    where: str

    def read(self, positions: np.ndarray | None = None) -> np.ndarray:
        """(T, L, H, W) float32, finite, on the archive's grid.

        Raises:
            GapzooError: where a value is missing and nothing says how to fill it.
        """
        if positions is None:
            return self._prepare(self.field.read())
        size = max(1, BLOCK_BYTES // self._step_bytes())
        parts = [positions[n : n + size] for n in range(0, len(positions), size)]
        return np.concatenate([self._prepare(self.field.read(part)) for part in parts])

    def _step_bytes(self) -> int:
        time = self.field.dims.get("time")
        return 4 * max(1, self.field.array.size // max(1, self.field.array.sizes.get(time, 1)))

    def _prepare(self, values: np.ndarray) -> np.ndarray:
        regridder = self.preparation.regridder
        values = regridder(values) if regridder else values
        missing = np.isnan(values)
        if not missing.any():
            return values
        fill = {**FILL, **self.preparation.fill}.get(self.name)
        if fill == "from_above":
            values = self._from_above(values)
        elif fill is not None:
            values = np.where(missing, np.float32(float(fill)), values)
        self._refuse_missing(values)
        return values

    def _from_above(self, values: np.ndarray) -> np.ndarray:
        order = np.argsort(np.asarray(self.levels if self.levels is not None else [0.0]))
        values = values.copy()
        for above, below in pairwise(order):
            here = values[:, below]
            values[:, below] = np.where(np.isnan(here), values[:, above], here)
        return values

    def _refuse_missing(self, values: np.ndarray) -> None:
        missing = np.isnan(values)
        if missing.any():
            level = int(np.flatnonzero(missing.any((0, 2, 3)))[0])
            at = "" if self.levels is None else f" at level {self.levels[level]:g}"
            raise GapzooError(
                f"{self.where}: '{self.name}'{at} lacks {missing[:, level].mean():.1%} of its "
                f"values; fill them by a number or from the level above: "
                f"fill: {{{self.name}: from_above}}"
            )


@dataclass(frozen=True)
class Stepped:
    """A prepared variable without levels as a function of time, linear between its steps."""

    prepared: Prepared
    axis: Axis

    @property
    def period(self) -> Period:
        """First and last step."""
        return self.axis.times[0], self.axis.times[-1]

    def __call__(self, times: pd.DatetimeIndex) -> np.ndarray:
        """(T, H, W) SI units; raises GapzooError outside the period."""
        covers(self.period, times, self.prepared.name)
        steps = self.axis.times
        at = steps.get_indexer(times)
        if (at >= 0).all():
            return self.prepared.read(self.axis.positions[at])[:, 0]
        after = np.clip(np.searchsorted(steps, times), 1, len(steps) - 1)
        both = np.unique(np.stack([after - 1, after]))
        values = self.prepared.read(self.axis.positions[both])[:, 0]
        return between(days_of(steps[both]), values, days_of(times)).astype(np.float32)
