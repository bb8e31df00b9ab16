"""Forcing as a recipe names it, each entry a function of time on the archive's grid.

sea_surface_temperature:                     the data set's own, or its name there
sea_surface_temperature: {path: sst.nc}      from elsewhere: monthly means keep their mean
toa_incident_solar_radiation:                computed, unless a name is given
carbon_dioxide: {years: {1979: 3.37e-4}}     annual means, linear between mid-years
carbon_dioxide: 2.8e-4                       a constant
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from gapzoo.core import GapzooError, Grid, nearest
from gapzoo.data.boundary import SOLAR, Fields, Monthly, Series, Solar, TimeField, yearly
from gapzoo.data.calendars import Axis, axis, monthly
from gapzoo.data.cf import Dataset, Reading
from gapzoo.data.opening import open_dataset
from gapzoo.data.prepare import Preparation, Stepped
from gapzoo.data.regrid import Regridder

ENTRY = (
    "path",
    "variable",
    "units",
    "select",
    "axes",
    "times",
    "engine",
    "options",
    "fill",
    "years",
)
ALWAYS = pd.Timedelta(days=365 * 100)
Entries = Sequence[str] | Mapping[str, Any]


@dataclass(frozen=True)
class Prescription:
    """What forcing entries are made from.

    Args:
        data: the data set of the states.
        axis: its times.
        grid: the archive's.
        preparation: of the data set's fields.
    """

    data: Dataset
    axis: Axis
    grid: Grid
    preparation: Preparation

    def fields(self, entries: Entries) -> Fields:
        """The fields that a recipe names.

        Args:
            entries: names, or name to an entry as the module lists them.
        """
        named = dict(entries) if isinstance(entries, Mapping) else dict.fromkeys(entries)
        if not named:
            raise GapzooError(f"no forcing is named; take at least {SOLAR}, which is computed")
        return Fields({name: self._field(name, entry) for name, entry in named.items()})

    def _field(self, name: str, entry: Any) -> TimeField:
        if name == SOLAR and entry is None:
            return Solar(self.grid)
        if entry is None or isinstance(entry, str):
            mapping = self.data.reading.mapping | ({name: entry} if entry else {})
            data = replace(self.data, reading=replace(self.data.reading, mapping=mapping))
            return Stepped(self.preparation.of(data, name), self.axis)
        if isinstance(entry, int | float):
            value = np.full((1, 1, 1), float(entry))
            return Series(name, self.axis.times[:1], value, self.grid, ALWAYS)
        unknown = [k for k in entry if k not in ENTRY]
        if unknown or not {"path", "years"} & set(entry):
            key = unknown[0] if unknown else "path"
            raise GapzooError(f"forcing '{name}': '{key}' {nearest(key, ENTRY)}")
        if "years" in entry:
            return yearly(name, entry["years"], self.grid)
        return self._elsewhere(name, entry)

    def _elsewhere(self, name: str, entry: Mapping[str, Any]) -> TimeField:
        """From a data set of its own, regridded where it must be."""
        given = entry.get("axes") or {}
        opened = open_dataset(
            entry["path"], entry.get("engine"), entry.get("options"), given.get("time")
        )
        reading = Reading(
            mapping={name: entry["variable"]} if "variable" in entry else {},
            units={name: entry["units"]} if "units" in entry else {},
            axes=given,
            select=entry.get("select") or {},
            times=entry.get("times"),
        )
        data = reading.of(opened, str(entry["path"]))
        same = data.grid.matches(self.grid)
        regridder = None if same else Regridder(data.grid, self.grid)
        fill = {name: entry["fill"]} if "fill" in entry else self.preparation.fill
        prepared = Preparation(regridder, fill).of(data, name)
        steps = axis(data.time, gaps="split")
        if monthly(steps.times):
            return Monthly(name, steps.times, prepared.read(steps.positions)[:, 0])
        return Stepped(prepared, steps)
