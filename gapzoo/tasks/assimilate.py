"""Assimilation of a table of observations: written as it runs, taken up again where it stopped.

A folder grows cycle by cycle:

    analyses.zarr      members, WeatherBench 2 layout
    increments.zarr    analysis less forecast, members (less the climatology at the first analysis)
    innovations/       one Parquet table a cycle: every observation of it, used or with the reason
                       why not, against background and analysis
    recipe.yaml        what was asked for; a folder of another recipe is refused

Members pass through the file's precision at every cycle, so a run that was taken up again equals
an uninterrupted one. An analysis at t takes the observations whose time, rounded to ``slot`` hours,
lies in (t - hours, t] (``window: end``) or in [t, t + hours) (``window: start``); see ``windows``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from gapzoo.core import GapzooError, MemberGenerator
from gapzoo.data.observations import Observations, check, operator_for
from gapzoo.data.observations.operators import LinearObservationOperator, build_operator
from gapzoo.data.output import ForecastStore
from gapzoo.tasks.assimilation import Assimilation, Step, constraint
from gapzoo.tasks.assimilation_recipe import AssimilationRecipe
from gapzoo.tasks.initial import claim
from gapzoo.tasks.windows import Timed, at_start, first_guess

Forcing = Callable[[pd.Timestamp], np.ndarray | None]


@dataclass
class Run:
    """Writes analyses.

    Args:
        task: draws and carries them.
        recipe: what is asked for.
        observations: all of them, before any check.
        folder: of the run.
        forcing: (F, H, W) anomalies of a time, or None.
        identity: text that tells this run from another, kept in ``recipe.yaml``.
        attributes: of the stores: checkpoints, seed.
    """

    task: Assimilation
    recipe: AssimilationRecipe
    observations: Observations
    folder: Path
    forcing: Forcing = lambda _: None
    identity: str = ""
    attributes: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not len(self.observations):
            raise GapzooError("there are no observations in the table")
        slot = pd.Timedelta(hours=self.recipe.slot or self.recipe.hours)
        self.slots = (self.observations.table["time"] + slot / 2).dt.floor(slot)
        self.times = self._times()

    def _times(self) -> pd.DatetimeIndex:
        every = f"{self.recipe.hours}h"
        first = pd.Timestamp(self.recipe.start or self.slots.min().floor(every))
        last = pd.Timestamp(self.recipe.end or self.slots.max().ceil(every))
        times = pd.date_range(first, last, freq=every)
        if not len(times):
            raise GapzooError(f"no analysis between {first} and {last}; check 'start' and 'end'")
        return times

    def left_out(self) -> pd.DataFrame:
        """Observations that belong to no cycle of the run, with the reason."""
        hours = pd.Timedelta(hours=self.recipe.hours)
        first, last = self.times[0], self.times[-1]
        low, high = (first - hours, last) if self.recipe.window == "end" else (first, last + hours)
        inside = (self.slots > low) & (self.slots <= high)
        if self.recipe.window == "start":
            inside = (self.slots >= low) & (self.slots < high)
        return self.observations.table[~inside].assign(reason="outside the run's cycles")

    def run(self, progress: Callable[[int], None] | None = None) -> int:
        """Do what is left to do; the number of cycles done now.

        Args:
            progress: called with 1 after each cycle, those found done included.

        Raises:
            GapzooError: where the folder holds another run.
        """
        claim(self.folder, self.identity)
        (self.folder / "innovations").mkdir(exist_ok=True)
        stores = [self._store(name) for name in ("analyses", "increments")]
        done = _done(stores, self.times)
        if progress and done:
            progress(done)
        members = self._read(stores[0], done - 1) if done else None
        for number in range(done, len(self.times)):
            members = self._cycle(number, members, stores)
            if progress:
                progress(1)
        return len(self.times) - done

    def _store(self, name: str) -> ForecastStore:
        return ForecastStore(
            self.folder / f"{name}.zarr",
            self.task.world,
            self.times,
            members=self.recipe.members,
            attributes=self.attributes,
        )

    def last(self, name: str) -> np.ndarray:
        """(M, C, H, W) of the last cycle in SI units: ``analyses`` or ``increments``."""
        return self._stored(self._store(name), len(self.times) - 1)

    def _read(self, store: ForecastStore, number: int) -> Tensor:
        """(M, C, H, W) normalised analysis as it was written."""
        return self._normalised(torch.from_numpy(self._stored(store, number)), self.times[number])

    def _stored(self, store: ForecastStore, number: int) -> np.ndarray:
        """(M, C, H, W) in SI units."""
        with store.open() as data:
            one = data.isel(time=number)
            fields = [
                one[c.variable].values
                if c.level is None
                else one[c.variable].isel(level=store.levels.index(c.level)).values
                for c in self.task.world.channels
            ]
        return np.stack(fields, 1)

    def _normalised(self, physical: Tensor, time: pd.Timestamp) -> Tensor:
        return self.task.world.normalise(physical[None], pd.DatetimeIndex([time]))[0]

    def _physical(self, members: Tensor, time: pd.Timestamp) -> Tensor:
        """(M, C, H, W) in SI units, float32."""
        return self.task.world.denormalise(members[None], pd.DatetimeIndex([time]))[0].float()

    def _cycle(self, number: int, members: Tensor | None, stores: list[ForecastStore]) -> Tensor:
        """One analysis, written and as it was written."""
        time = self.times[number]
        generator = MemberGenerator(self.recipe.seed, self.recipe.members)
        backgrounds = self._backgrounds(number, members, generator)
        batches = [self._batch(slot, backgrounds) for slot in self._slots(time)]
        forecast, forcing = backgrounds.get(time), self.forcing(time)
        seen = [b.timed for b in batches if b.timed is not None]
        observed = first_guess(seen, time, forecast, backgrounds)
        if any(one.time > time for one in seen):
            assert self.task.forecaster is not None
            observed += at_start(seen, time, self.task.forecaster, forcing)
        streams = generator.fork("analysis", time)
        drawn = self.task.analyse(time, streams, observed, forcing, forecast)
        physical = self._physical(drawn, time)
        reference = self.task.world.mean(pd.DatetimeIndex([time]))[0].float()
        if forecast is not None:
            reference = self._physical(forecast, time)
        self._tabulate(time, batches, backgrounds, drawn)
        stores[1].write(time, None, physical - reference)
        stores[0].write(time, None, physical)
        return self._normalised(physical, time)

    def _slots(self, time: pd.Timestamp) -> list[pd.Timestamp]:
        """Times of the window's observations."""
        hours = pd.Timedelta(hours=self.recipe.hours)
        slots = pd.DatetimeIndex(self.slots.unique()).sort_values()
        if self.recipe.window == "end":
            return list(slots[(slots > time - hours) & (slots <= time)])
        return list(slots[(slots >= time) & (slots < time + hours)])

    def _backgrounds(
        self, number: int, members: Tensor | None, generator: MemberGenerator
    ) -> dict[pd.Timestamp, Tensor]:
        """Normalised forecasts at the analysis and at the slots; none before the first analysis."""
        if members is None:
            return {}
        time, last = self.times[number], self.times[number - 1]
        slots = self._slots(time)
        before = Step(last, forcing=self.forcing(last))
        forecast, found = self.task.carry(members, before, time, slots, generator)
        later = [slot for slot in slots if slot > time]
        if later:
            here, streams = Step(time, forcing=self.forcing(time)), generator.fork("check")
            found |= self.task.carry(forecast, here, later[-1], later, streams)[1]
        return found

    def _batch(self, slot: pd.Timestamp, backgrounds: dict[pd.Timestamp, Tensor]) -> Batch:
        """The observations of a slot: checked, the good ones as a constraint."""
        world, then = self.task.world, pd.DatetimeIndex([slot])
        if slot in backgrounds:
            physical = self._physical(backgrounds[slot], slot)
            mean, spread = physical.mean(0), physical.std(0)
        else:
            mean = world.mean(then)[0].float()
            spread = torch.from_numpy(world.climatology.std(then)[0]).float()
        own = self.observations[np.flatnonzero(self.slots == slot)]
        own = _on_levels(own, world, mean)
        limit, beyond = self.recipe.limit, self.recipe.beyond
        known = {"background": mean, "background_spread": spread, "limit": limit} if limit else {}
        good, rejected = check(own, world.grid, world.channels, beyond=beyond, **known)  # type: ignore[arg-type]
        reasons = np.full(len(own), "", dtype=object)
        reasons[rejected["row"].to_numpy(int)] = rejected["reason"].to_numpy()
        table = own.table.assign(slot=slot, reason=reasons)
        if not len(good):
            return Batch(slot, table, None, None)
        operator = operator_for(good, world.grid, world.channels, self.recipe.beyond)
        y, errors = (
            torch.from_numpy(good.table[name].to_numpy(np.float32)) for name in ("value", "error")
        )
        seen = constraint(world, operator, y, errors, slot, student=self.recipe.degrees or None)
        return Batch(slot, table, operator, Timed(slot, seen))

    def _tabulate(
        self,
        time: pd.Timestamp,
        batches: list[Batch],
        backgrounds: dict[pd.Timestamp, Tensor],
        analysis: Tensor,
    ) -> None:
        """Write the cycle's table of innovations."""
        parts = [_departures(self, time, b, backgrounds, analysis) for b in batches]
        table = pd.concat(parts) if parts else self.observations.table.iloc[:0]
        path = self.folder / "innovations" / f"{time:%Y%m%dT%H}.parquet"
        part = path.with_suffix(".part")
        table.to_parquet(part, index=False)
        part.replace(path)

    def innovations(self) -> Iterator[pd.DataFrame]:
        """The tables of the cycles that are done, in order."""
        for path in sorted((self.folder / "innovations").glob("*.parquet")):
            yield pd.read_parquet(path)


@dataclass(frozen=True)
class Batch:
    """Observations of one slot.

    Args:
        slot: their time.
        table: all of them, with a ``reason`` where they are not used.
        operator: of the good ones, on states in SI units.
        timed: the good ones as a constraint.
    """

    slot: pd.Timestamp
    table: pd.DataFrame
    operator: LinearObservationOperator | None
    timed: Timed | None


def _departures(
    run: Run,
    time: pd.Timestamp,
    batch: Batch,
    backgrounds: dict[pd.Timestamp, Tensor],
    analysis: Tensor,
) -> pd.DataFrame:
    """The batch's table with mean and spread of background and analysis, NaN where unknown.

    The analysis of a slot before the analysis time is the background there plus the increment.
    """
    table = batch.table.copy()
    for name in ("background", "analysis"):
        table[name], table[f"{name}_spread"] = math.nan, math.nan
    if batch.operator is None:
        return table
    used = (table["reason"] == "").to_numpy()

    def put(name: str, values: Tensor) -> None:
        table.loc[used, name] = values.mean(0).numpy()
        table.loc[used, f"{name}_spread"] = values.std(0).numpy()

    there, here = backgrounds.get(batch.slot), backgrounds.get(time)
    seen = batch.operator(run._physical(analysis, time))
    if there is not None and here is not None:
        first = batch.operator(run._physical(there, batch.slot))
        put("background", first)
        if batch.slot != time:
            seen = seen + first - batch.operator(run._physical(here, time))
    if batch.slot <= time:
        put("analysis", seen)
    return table


def _on_levels(own: Observations, world: Any, mean: Tensor) -> Observations:
    """Pressure levels as sigma by the background's surface pressure, for a world on sigma."""
    names = {c.variable for c in world.channels}
    if world.channels.level_kind == own.level_kind or own.level_kind != "pressure":
        return own
    if world.channels.level_kind != "sigma" or "surface_pressure" not in names:
        return own
    operator = build_operator(
        world.grid,
        world.channels,
        own.table["latitude"].to_numpy(),
        own.table["longitude"].to_numpy(),
        np.full(len(own), "surface_pressure"),
        np.full(len(own), np.nan),
    )
    return own.on_sigma(operator(mean).numpy())


def _done(stores: list[ForecastStore], times: pd.DatetimeIndex) -> int:
    """How many cycles both stores have, from the first on."""
    for number, time in enumerate(times):
        if not all(store.complete(time) for store in stores):
            return number
    return len(times)
