"""Climate: the roll-out for decades to millennia, with prescribed forcing, recorded as it runs.

What is kept is in ``gapzoo.tasks.record``; a run is taken up again at its last whole month and goes
on bit for bit. Its end, or the first state that is not finite or left the climate, makes a report.
The same record of an archive's years is the reference.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import torch

from gapzoo.core import GapzooError, MemberGenerator
from gapzoo.data.archive import Archive
from gapzoo.data.forcing import require
from gapzoo.data.module import Reader
from gapzoo.tasks.initial import Analyses, Drawn, Truth
from gapzoo.tasks.record import HOUR, Recorder
from gapzoo.tasks.rollout import Rollout, Start
from gapzoo.tasks.sea import SeaSurface, check_kind
from gapzoo.tasks.settings import RolloutSettings, device_of, require_daily

Progress = Callable[[int], None]


@dataclass
class ClimateRecipe(RolloutSettings):
    """``gapzoo simulate``.

    Args:
        start: first day, the first of a month.
        years: length.
        initial: archive or analyses to start from; empty draws states from the prior.
        perturb: of the members, where ``initial`` is an archive.
        sst: ``observed`` or ``climatology``.
        offset: K added to the sea surface everywhere, for a changed climate.
        forcing: archive of the sea surface; ``initial`` or ``reference`` where empty.
        daily: labels of fields that are kept at every step of the first ``daily_years``.
        daily_years: how many; 0 keeps none.
        reference: archive that the report compares with; none where empty.
        reference_period: first and last day of its years.
    """

    start: str = "1979-01-01"
    years: float = 30
    initial: str = ""
    perturb: float = 0.0
    sst: str = "climatology"
    offset: float = 0.0
    forcing: str = ""
    daily: list[str] = field(default_factory=list)
    daily_years: float = 0
    reference: str = ""
    reference_period: list[str] = field(default_factory=lambda: ["1979-01-01", "2008-12-31"])

    def __post_init__(self) -> None:
        super().__post_init__()
        check_kind(self.sst, ("observed", "climatology"))
        require_daily(self.hours)
        if self.years * 12 < 1:
            raise GapzooError(f"{self.years} years; a simulation takes a month at least")
        if len(self.reference_period) != 2:
            raise GapzooError("'reference_period' needs a first and a last day")
        if not self.initial and not self.prior:
            raise GapzooError("without a prior nothing is drawn to start from; give 'initial'")

    @property
    def months(self) -> int:
        """Length in months."""
        return round(self.years * 12)


@dataclass(frozen=True)
class Simulation:
    """Runs and records.

    Args:
        rollout: carries the ensemble.
        recorder: keeps what is kept.
        initial: states to start from.
        sea: forcing.
        settings: seed, members, device.
    """

    rollout: Rollout
    recorder: Recorder
    initial: Truth | Analyses | Drawn
    sea: SeaSurface
    settings: RolloutSettings

    def run(self, progress: Progress | None = None) -> None:
        """Do what is left to do.

        Args:
            progress: called with 1 after each month, those found done included.

        Raises:
            Unphysical: at the first state that is; what was recorded before it is kept.
        """
        recorder = self.recorder
        forcing = self.sea.at(recorder.start)
        require(forcing, recorder.start, recorder.edges[-1] - HOUR)
        done = recorder.done
        if progress and done:
            progress(done)
        if recorder.complete:
            return
        for (frame,) in self.rollout.frames([self._start(forcing)]):
            recorder.add(frame.time, frame.physical, frame.state)
            if progress and recorder.done > done:
                progress(recorder.done - done)
            done = recorder.done
            if recorder.complete:
                return

    def _start(self, forcing) -> Start:  # type: ignore[no-untyped-def]
        """The beginning, or the last whole month's end."""
        recorder, device = self.recorder, device_of(self.settings.device)
        streams = MemberGenerator(self.settings.seed, recorder.members, device)
        if recorder.state is None:
            states = self.initial.states(recorder.start, streams).to(device)
            return Start(states, recorder.start, streams, forcing)
        physical = torch.from_numpy(recorder.state).to(device)
        then = pd.DatetimeIndex([recorder.time])
        state = self.rollout.world.normalise(physical[None], then)[0]
        return Start(state, recorder.time, streams, forcing, recorder.start)


def refer(recorder: Recorder, archive: Archive, progress: Progress | None = None) -> None:
    """Record an archive's own states, a member of one, as a simulation's are.

    Args:
        recorder: its times must be the archive's.
        archive: on the recorder's world.
        progress: called with 1 after each month.
    """
    reader, hours = Reader(archive, recorder.world), recorder.hours
    for month in range(recorder.done, recorder.months):
        first, last = recorder.edges[month], recorder.edges[month + 1]
        times = pd.date_range(first, last, freq=f"{hours}h", inclusive="left")
        rows = archive.find(times[times > recorder.start])
        if (rows < 0).any():
            raise GapzooError(f"{archive.path} has no states of all of {first:%Y-%m}")
        physical, state = reader.physical(rows), reader.state(rows)
        for n, row in enumerate(rows):
            recorder.add(archive.times[row], physical[n : n + 1], state[n : n + 1])
        if progress:
            progress(1)


def months_of(period: list[str]) -> tuple[pd.Timestamp, int]:
    """First day and number of whole months of a period."""
    first, last = pd.Timestamp(period[0]), pd.Timestamp(period[1]) + pd.Timedelta(days=1)
    months = (last.year - first.year) * 12 + last.month - first.month
    if first.day != 1 or last.day != 1 or months < 1:
        raise GapzooError(f"{period[0]} to {period[1]} are no whole months")
    return first, int(np.int64(months))
