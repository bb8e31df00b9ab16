"""Seasons: the roll-out from the same day of several years, kept as monthly means.

``monthly.zarr`` has the layout of a forecast whose n-th lead, n times 730 hours, stands for the
n-th calendar month of the forecast: the mean over its steps of the fields that are looked at
(``Diagnostics``), members apart. Starts of one day of the year share a batch; those that were cut
off are done again. Truth is averaged from an archive at the same steps.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from gapzoo.core import GapzooError
from gapzoo.core.world import World
from gapzoo.data.archive import Archive
from gapzoo.data.forcing import require
from gapzoo.data.module import Reader
from gapzoo.data.output import ForecastStore
from gapzoo.tasks.diagnostics import Diagnostics
from gapzoo.tasks.rollout import Frame, Rollout, Start
from gapzoo.tasks.sea import check_kind
from gapzoo.tasks.settings import RolloutSettings, require_daily

Progress = Callable[[int], None]
NOMINAL = 730
"""Hours: the lead that stands for a month."""


@dataclass
class SeasonalRecipe(RolloutSettings):
    """``gapzoo seasonal``.

    Args:
        initial: an archive, or a store of analyses in the layout of WeatherBench 2.
        perturb: of the members, where ``initial`` is an archive; see ``gapzoo.tasks.initial``.
        forcing: archive of the sea surface; ``initial`` where empty.
        truth: archive that the report scores against; the forcing's where empty.
        years: of the starts.
        starts: days of the year, month-day, each the first of a month.
        months: length.
        sst: see ``gapzoo.tasks.sea``.
        known_days: age of the SST anomaly that a start knows.
        eofs: of the linear inverse model.
        group: starts that share a batch.
    """

    initial: str = "archives/speedy-t21.zarr"
    perturb: float = 0.0
    forcing: str = ""
    truth: str = ""
    years: list[int] = field(default_factory=lambda: list(range(2006, 2013)))
    starts: list[str] = field(default_factory=lambda: ["11-01", "05-01"])
    months: int = 6
    sst: str = "persisted"
    known_days: float = 17
    eofs: int = 15
    group: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        check_kind(self.sst)
        require_daily(self.hours)
        if self.months < 1 or not self.years or not self.starts:
            raise GapzooError("a seasonal forecast takes a month, a year and a start at least")
        for day in self.starts:
            if not day.endswith("-01"):
                raise GapzooError(f"start '{day}'; it must be the first of a month, as 11-01")
        self.times  # noqa: B018  refuses what is no date

    @property
    def times(self) -> pd.DatetimeIndex:
        """Initial times, starts of a day of the year together."""
        stamps = [f"{year}-{day}" for day in self.starts for year in self.years]
        try:
            return pd.DatetimeIndex(stamps)
        except ValueError:
            raise GapzooError(f"starts {self.starts}; write month-day, as 11-01") from None


@dataclass(frozen=True)
class Seasons:
    """Writes seasonal forecasts.

    Args:
        rollout: carries the ensembles.
        folder: of ``monthly.zarr``.
        times: initial times.
        months: length.
        members: how many.
        attributes: of the store.
    """

    rollout: Rollout
    folder: Path
    times: pd.DatetimeIndex
    months: int
    members: int
    attributes: dict[str, str] | None = None

    @property
    def diagnostics(self) -> Diagnostics:
        """The fields of the store."""
        return Diagnostics(self.rollout.world)

    @property
    def store(self) -> ForecastStore:
        """The store; made, or opened where it is there."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return ForecastStore(
            self.folder / "monthly.zarr",
            self.rollout.world,
            self.times,
            [NOMINAL * (n + 1) for n in range(self.months)],
            self.members,
            channels=self.diagnostics.channels,
            attributes={"lead": "730 h stand for a calendar month", **(self.attributes or {})},
        )

    def left(self, size: int) -> list[pd.DatetimeIndex]:
        """Starts that are not complete, in groups of one day of the year."""
        store, days = self.store, dict[str, list[pd.Timestamp]]()
        for time in self.times:
            if not store.complete(time):
                days.setdefault(f"{time:%m%d}", []).append(time)
        return [
            pd.DatetimeIndex(found[i : i + size])
            for found in days.values()
            for i in range(0, len(found), size)
        ]

    def run(self, starts: Sequence[Start], progress: Progress | None = None) -> None:
        """Carry a group to its end.

        Args:
            starts: of one day of the year.
            progress: called with the number of months that were written.

        Raises:
            Unphysical: at the first state that is; what was written is kept.
        """
        means = [MonthlyMeans(s.time, self.months) for s in starts]
        for start, mean in zip(starts, means, strict=True):
            require(start.forcing, start.time, mean.edges[-1] - pd.Timedelta(hours=1))
        store = self.store
        for frames in self.rollout.frames(starts):
            for frame, mean in zip(frames, means, strict=True):
                self._take(frame, mean, store, progress)
            if all(mean.complete for mean in means):
                return

    def _take(
        self, frame: Frame, mean: MonthlyMeans, store: ForecastStore, progress: Progress | None
    ) -> None:
        if mean.complete:
            return
        fields = self.diagnostics(frame.physical).double().cpu().numpy()
        whole = mean.add(frame.time, fields, self.rollout.hours)
        if whole is not None:
            store.write(mean.start, NOMINAL * mean.done, whole.astype(np.float32))
            if progress:
                progress(1)


class MonthlyMeans:
    """Means of the steps of each calendar month.

    Args:
        start: the first of a month; its own state is not counted.
        months: how many.
    """

    def __init__(self, start: pd.Timestamp, months: int) -> None:
        self.start, self.done, self.count = start, 0, 0
        self.edges = pd.date_range(start, periods=months + 1, freq="MS")
        self.total: np.ndarray | float = 0.0

    @property
    def complete(self) -> bool:
        """Whether every month is there."""
        return self.done >= len(self.edges) - 1

    def add(self, time: pd.Timestamp, fields: np.ndarray, hours: int) -> np.ndarray | None:
        """Add a step; the mean of the month that it ends, else None."""
        self.total, self.count = self.total + fields, self.count + 1
        if time + pd.Timedelta(hours=hours) < self.edges[self.done + 1]:
            return None
        mean = np.asarray(self.total / self.count)
        self.total, self.count, self.done = 0.0, 0, self.done + 1
        return mean


def unbroken(archive: Archive, start: pd.Timestamp, months: int) -> bool:
    """Whether one run of the simulator made the month before a start and all months after it.

    An archive is made of several runs side by side; where one goes over to the next the weather
    of a season does not go on, and no forecast of it can be right. True where states are missing,
    which ``truth_months`` refuses.
    """
    edges = pd.DatetimeIndex(
        [start - pd.offsets.MonthBegin(1), start + pd.DateOffset(months=months) - archive.step]
    )
    rows = archive.find(edges)
    return bool((rows < 0).any() or archive.runs[rows[0]] == archive.runs[rows[1]])


def truth_months(
    archive: Archive, world: World, start: pd.Timestamp, months: int, hours: int
) -> np.ndarray:
    """(1 + months, V, H, W) monthly means of an archive: the month before a start, then on.

    Raises:
        GapzooError: where the archive does not hold all of them.
    """
    reader, diagnostics = Reader(archive, world), Diagnostics(world)
    edges = pd.date_range(start - pd.offsets.MonthBegin(1), periods=months + 2, freq="MS")
    found = []
    for first, last in itertools.pairwise(edges):
        times = pd.date_range(first, last, freq=f"{hours}h", inclusive="left")
        rows = archive.find(times[times != start])
        if (rows < 0).any():
            raise GapzooError(f"{archive.path} has no states of all of {first:%Y-%m}")
        found.append(diagnostics(reader.physical(rows)).double().mean(0).numpy())
    return np.stack(found)
