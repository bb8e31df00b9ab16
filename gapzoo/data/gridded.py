"""Any gridded data set as a source: variables found, units, grid, calendar and levels settled.

A segment is a row of shards that is read on its own, so threads, processes and the workers of a
cluster do the same work; what is written depends on the data and the arguments alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from gapzoo.core import VARIABLES, Channel, Channels, GapzooError
from gapzoo.data.archive import ArchiveSpec, steps_a_shard
from gapzoo.data.boundary import Fields
from gapzoo.data.build import Segment
from gapzoo.data.calendars import Axis, axis, thinned
from gapzoo.data.cf import Dataset, Reading
from gapzoo.data.opening import open_dataset
from gapzoo.data.prepare import Preparation, Prepared
from gapzoo.data.prescribed import Entries, Prescription
from gapzoo.data.regrid import Regridder, grid_named

STATIC = ("geopotential_at_surface", "land_sea_mask")
WHERE = ("path", "engine", "options", "segment_shards")
"""Arguments that say where data are and how they are read, and do not change an archive."""


class GriddedSource:
    """A data set that xarray opens.

    Args:
        path: a store, file, URL, pattern or list, as ``gapzoo.data.opening`` takes them.
        variables: WeatherBench 2 names of the state, or name to what the data set calls it.
        levels: hPa or sigma, of the variables that have levels; all there are where None.
        forcings: names, or name to an entry (gapzoo.data.prescribed).
        static: names or name to the data set's; surface height and land mask, where it has them,
            if None.
        start: first day, such as 1979-01-01; all there is where None.
        end: last day, inclusive.
        hours: time between steps; the data set's own where None.
        grid: name of a grid to regrid to conservatively (gapzoo.data.regrid); none where None.
        least: smallest known share of a cell in regridding (gapzoo.data.regrid).
        fill: variable to what its missing values become (gapzoo.data.prepare).
        units: variable to its units, where the data set names none or wrong ones.
        axes, select, times: as ``Reading`` takes them.
        year_shift, doubles, gaps: as ``gapzoo.data.calendars.axis`` takes them.
        engine, options: as ``open_dataset`` takes them.
        world: name of the world; the data set's file name where None.
        license: terms of the data.
        segment_shards: shards that one worker makes in a row.
    """

    threads = True
    description = "a CF data set"

    def __init__(
        self,
        *,
        path: str | Sequence[str],
        variables: Entries,
        levels: Sequence[float] | None = None,
        forcings: Entries = ("toa_incident_solar_radiation",),
        static: Entries | None = None,
        start: str | None = None,
        end: str | None = None,
        hours: int | None = None,
        grid: str | None = None,
        least: float = 0.0,
        fill: Mapping[str, float | str] | None = None,
        units: Mapping[str, str] | None = None,
        axes: Mapping[str, str] | None = None,
        select: Mapping[str, int] | None = None,
        times: Sequence[str] | None = None,
        year_shift: int = 0,
        doubles: str = "refuse",
        gaps: str = "refuse",
        engine: str | None = None,
        options: dict[str, Any] | None = None,
        world: str | None = None,
        license: str = "unknown",
        segment_shards: int = 12,
    ) -> None:
        given = {k: v for k, v in locals().items() if k not in ("self", "__class__", *WHERE)}
        used = {k: v for k, v in given.items() if v is not None}
        self.arguments = json.loads(json.dumps(used))  # as an archive's attributes give them back
        self.path, self.engine, self.options = path, engine, options
        self.state, self.wanted, self.forcings = _named(variables), levels, forcings
        self.static, self.target, self.hours = static, grid, hours
        self.period, self.least, self.fill = (start, end), least, dict(fill or {})
        self.calendar = {"year_shift": year_shift, "doubles": doubles, "gaps": gaps}
        self.segment_shards = segment_shards
        stem = Path(str(path if isinstance(path, str | Path) else path[0])).stem
        self.world, self.license = world or stem, license
        mapping = {k: v for k, v in {**self.state, **_named(static or ())}.items() if v}
        self.reading = Reading(
            mapping, dict(units or {}), dict(axes or {}), dict(select or {}), times
        )

    @cached_property
    def data(self) -> Dataset:
        """The data set, opened."""
        where = str(self.path if isinstance(self.path, str | Path) else self.path[0])
        time = self.reading.axes.get("time")
        return self.reading.of(open_dataset(self.path, self.engine, self.options, time), where)

    @cached_property
    def axis(self) -> Axis:
        """Times of the archive, and where they stand in the data set."""
        try:
            whole = axis(self.data.time, period=self.period, **self.calendar)  # type: ignore[arg-type]
            return thinned(whole, self.hours)
        except GapzooError as error:
            raise GapzooError(f"{self.data.where}: {error}") from None

    @cached_property
    def preparation(self) -> Preparation:
        """What is done to every field."""
        if self.target is None:
            return Preparation(None, self.fill)
        target = grid_named(self.target)
        same = self.data.grid.matches(target)
        regridder = None if same else Regridder(self.data.grid, target, self.least)
        return Preparation(regridder, self.fill)

    @cached_property
    def fields(self) -> list[Prepared]:
        """The state's variables, in order."""
        found = []
        for name in self.state:
            levels = self._levels(name)
            found.append(self.preparation.of(self.data, name, levels))
        return found

    @cached_property
    def forcing(self) -> Fields:
        """The forcing as a function of time; refused here where it does not cover the states."""
        grid = self._grid
        made = Prescription(self.data, self.axis, grid, self.preparation).fields(self.forcings)
        made.require(self.axis.times[[0, -1]])
        return made

    @property
    def _grid(self) -> Any:
        return grid_named(self.target) if self.target else self.data.grid

    def _levels(self, name: str) -> list[float] | None:
        """Levels of a variable, None where it has none."""
        known = VARIABLES.get(name)
        on_levels = known.place == "levels" if known else self.data.on_levels(name)
        if not on_levels:
            return None
        return [float(x) for x in (self.wanted or np.sort(self.data.levels))]

    def spec(self) -> ArchiveSpec:
        """Layout of the archive."""
        return self._spec

    @cached_property
    def _spec(self) -> ArchiveSpec:
        channels = [Channel(f.name, level) for f in self.fields for level in (f.levels or (None,))]
        kind = self.data.level_kind if any(c.level is not None for c in channels) else "pressure"
        attributes: dict[str, Any] = {
            "world": self.world,
            "source": f"{self.description}: {Path(self.data.where).name}",
            "license": self.license,
            "calendar": self.axis.calendar,
            "arguments": self.arguments,
        }
        return ArchiveSpec(
            self._grid,
            Channels(channels, kind),
            tuple(self.forcing.fields),
            self._static(),
            self.axis.times,
            self.axis.runs,
            attributes,
            steps_a_shard(len(channels), self._grid),
        )

    def _static(self) -> dict[str, np.ndarray]:
        """Fields without time, or the first step of those with."""
        given = _named(self.static or ())
        names = given or [name for name in STATIC if self.data.has(name)]
        return {name: self.preparation.of(self.data, name).read()[0, 0] for name in names}

    def segments(self) -> list[Segment]:
        """Rows of ``segment_shards`` shards."""
        shards, size = self.spec().shards, self.segment_shards
        starts = range(0, shards, size)
        return [Segment(n, s, min(s + size, shards)) for n, s in enumerate(starts)]

    def blocks(
        self, segment: Segment, scratch: Path
    ) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """Read the shards of a segment that are not marked as done."""
        size = self.spec().shard
        for shard in range(segment.done(scratch), segment.last):
            here = slice(shard * size, (shard + 1) * size)
            positions = self.axis.positions[here]
            state = np.concatenate([field.read(positions) for field in self.fields], 1)
            yield shard, state, self.forcing(self.axis.times[here])


def _named(entries: Entries) -> dict[str, Any]:
    """Name to the data set's name, None where it is found by itself."""
    return dict(entries) if isinstance(entries, Mapping) else dict.fromkeys(entries)
