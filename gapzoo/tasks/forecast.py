"""Weather: the roll-out from analyses, written while it runs, taken up again where it stopped.

Two stores in the layout of WeatherBench 2 grow side by side: ``states.zarr`` with the whole state
on the world's own levels, which a run goes on from, and ``forecast.zarr`` with the fields that
forecasters and scores look at (``Diagnostics``), on pressure levels. Initial times are taken in
groups that share a batch; a group goes on after the last lead that all of it has in both stores.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from gapzoo.core import Channels, GapzooError, MemberGenerator
from gapzoo.core.random import derive_seed
from gapzoo.data.output import ForecastStore
from gapzoo.tasks.diagnostics import Diagnostics
from gapzoo.tasks.initial import Analyses, Truth, stacked
from gapzoo.tasks.rollout import Frame, Rollout, Start
from gapzoo.tasks.sea import SeaSurface, check_kind
from gapzoo.tasks.settings import RolloutSettings, device_of


@dataclass
class ForecastRecipe(RolloutSettings):
    """``gapzoo forecast``.

    Args:
        initial: an archive, or a store of analyses in the layout of WeatherBench 2.
        perturb: of the members, where ``initial`` is an archive; see ``gapzoo.tasks.initial``.
        forcing: archive of the sea surface; ``initial`` where empty and that is one. Other kinds
            of ``sst`` than ``climatology`` need one.
        truth: archive that the report compares with; ``forcing`` where empty.
        times: initial times.
        lead_days: length of the forecast.
        write_hours: between the leads that are written; 0 is every step.
        group: initial times that share a batch.
        sst: see ``gapzoo.tasks.sea``.
    """

    initial: str = "archives/speedy-t21.zarr"
    perturb: float = 0.0
    forcing: str = ""
    truth: str = ""
    times: list[str] = field(default_factory=lambda: ["2010-01-10T00"])
    lead_days: float = 15
    write_hours: int = 0
    group: int = 4
    sst: str = "persisted"

    def __post_init__(self) -> None:
        super().__post_init__()
        every = self.write_hours or self.hours
        if every % self.hours or self.lead_days * 24 < every:
            raise GapzooError(
                f"write_hours {every} must be a multiple of the step, {self.hours} h, and not "
                f"beyond the lead, {self.lead_days:g} days"
            )
        check_kind(self.sst)

    @property
    def leads(self) -> list[int]:
        """Hours that are written."""
        every = self.write_hours or self.hours
        return list(range(every, int(self.lead_days * 24) + 1, every))


@dataclass(frozen=True)
class Forecasts:
    """Writes forecasts.

    Args:
        rollout: carries the ensembles.
        folder: of the two stores.
        times: initial times.
        leads: hours to write, multiples of the roll-out's step.
        members: how many.
        attributes: of the stores: checkpoints, seed.
    """

    rollout: Rollout
    folder: Path
    times: pd.DatetimeIndex
    leads: Sequence[int]
    members: int
    attributes: dict[str, str] | None = None

    @property
    def diagnostics(self) -> Diagnostics:
        """The fields of ``forecast.zarr``."""
        return Diagnostics(self.rollout.world)

    def stores(self) -> tuple[ForecastStore, ForecastStore]:
        """States and fields; made, or opened where they are there."""
        self.folder.mkdir(parents=True, exist_ok=True)
        states = self._store("states.zarr", self.rollout.world.channels)
        return states, self._store("forecast.zarr", self.diagnostics.channels)

    def _store(self, name: str, channels: Channels) -> ForecastStore:
        return ForecastStore(
            self.folder / name,
            self.rollout.world,
            self.times,
            self.leads,
            self.members,
            channels=channels,
            attributes=self.attributes,
        )

    def groups(self, size: int) -> list[pd.DatetimeIndex]:
        """Initial times that share a batch."""
        return [self.times[i : i + size] for i in range(0, len(self.times), size)]

    def done(self, starts: Sequence[Start]) -> list[int]:
        """Leads that a group goes on from."""
        return written(starts, *self.stores())

    def run(self, starts: Sequence[Start]) -> Iterator[list[Frame]]:
        """Carry a group to its end, yielding each step after it was written.

        Raises:
            Unphysical: at the first state that is; what was written is kept.
        """
        states, fields = self.stores()
        done = written(starts, states, fields)
        if done:
            device = starts[0].state.device
            starts = [resumed(s, states, done[-1], device) for s in starts]
        left = [lead for lead in self.leads if lead not in done]
        if not left:
            return
        offset = done[-1] if done else 0
        for frames in self.rollout.frames(starts):
            lead = frames[0].lead + offset
            frames = [replace(f, start=f.time - pd.Timedelta(hours=lead)) for f in frames]
            if lead in left:
                for frame in frames:
                    fields.write(frame.start, lead, self.diagnostics(frame.physical))
                    states.write(frame.start, lead, frame.physical)
            yield frames
            if lead >= left[-1]:
                return


def starts_of(
    times: pd.DatetimeIndex,
    initial: Truth | Analyses,
    sea: SeaSurface,
    settings: RolloutSettings,
    name: str = "forecast",
) -> list[Start]:
    """Initial times with their states and forcing; streams depend on seed, name and time alone."""
    device, found = device_of(settings.device), []
    for time in times:
        seed = derive_seed(settings.seed, name, time)
        generator = MemberGenerator(seed, settings.members, device)
        states = initial.states(time, generator).to(device)
        found.append(Start(states, time, generator, sea.at(time)))
    return found


def written(starts: Sequence[Start], *stores: ForecastStore) -> list[int]:
    """Leads, from the first without a gap, that every start has in every store."""
    every = [set(store.written(s.time)) for s in starts for store in stores]
    common, found = set.intersection(*every), []
    for lead in stores[0].leads or ():
        if lead not in common:
            break
        found.append(lead)
    return found


def resumed(start: Start, store: ForecastStore, lead: int, device: torch.device) -> Start:
    """A start moved to what is written at a lead."""
    time = start.time + pd.Timedelta(hours=lead)
    physical = read_state(store, start.time, lead).to(device)
    state = store.world.normalise(physical[None], pd.DatetimeIndex([time]))[0]
    return replace(start, state=state, time=time, first=start.first or start.time)


def read_state(store: ForecastStore, time: pd.Timestamp, lead: int | None = None) -> Tensor:
    """(M, C, H, W) float32 in SI units of a store that holds its world's channels."""
    with store.open() as data:
        chosen = data.sel(time=np.datetime64(time))
        if lead is not None:
            chosen = chosen.sel(prediction_timedelta=pd.Timedelta(hours=lead))
        return torch.from_numpy(stacked(chosen, store.world))
