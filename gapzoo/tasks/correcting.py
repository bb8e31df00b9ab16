"""The stages of a forecaster's corrected step, from forecasts of an archive."""

from __future__ import annotations

import copy
import itertools
import math
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from gapzoo.core import GapzooError
from gapzoo.data.module import Reader, hours_of
from gapzoo.diffusion.zonal import ZonalCovariance
from gapzoo.forecasters import Forecaster
from gapzoo.forecasters.corrected import Corrected, Stage
from gapzoo.forecasters.corrector import Corrector
from gapzoo.forecasters.linear import Correction, Fit
from gapzoo.tasks.forecast_error import within_run
from gapzoo.training.corrector import Plan, Sample, new_corrector, train_corrector

FORECASTS = 18000
"""How many a correction is fitted to, where the years have as many."""
JUDGES = 400
"""Forecasts of other years that say what it leaves."""
BATCH, LATE = 50, 0.2
"""Forecasts at a time; the share of them, the latest, that judges the matrices."""
USUAL = 20
"""Batches that say how large corrections usually are."""
Bar = Callable[[str, int], Callable[[int], object]]
"""A progress bar of a title and a total, as what it is advanced by."""


def fit_stages(
    forecaster: Forecaster,
    reader: Reader,
    years: tuple[np.ndarray, np.ndarray],
    hours: int,
    basis: ZonalCovariance,
    bar: Bar,
    stages: int = 1,
    plan: Plan | None = None,
) -> tuple[list[Stage], float]:
    """What a forecaster's step at a lead is corrected by.

    Forecasts are kept in temporary files (10 GB in the default world) and read from there.

    Args:
        forecaster: not corrected, in the reader's world.
        reader: of an archive.
        years: steps of the training years, in order of time, and of others, that judge.
        hours: lead.
        basis: covariance in whose modes the matrices act.
        bar: see Bar.
        stages: equal parts of the lead.
        plan: of the networks that follow the matrices; without steps there are none.

    Returns:
        The stages, and the share of the plain forecaster's squared error that they leave in the
        years that judge.

    Raises:
        GapzooError: where the lead has no such parts, no forecasts are inside the archive, or
            there is no room for the files.
    """
    plan = plan or Plan()
    step = hours_of(reader.archive)
    if hours % (stages * step):
        raise GapzooError(f"{hours} h in {stages} stages; the archive has steps of {step} h")
    learn, judge = (
        _chosen(reader, years[0], hours, FORECASTS),
        _chosen(reader, years[1], hours, JUDGES),
    )
    found = list[Stage]()
    with tempfile.TemporaryDirectory() as folder:
        kept = _Kept(Path(folder), reader, (learn, judge), forecaster, hours // stages)
        for number in range(stages):
            text = f"{hours} h, stage {number + 1} of {stages}"
            linear = kept.run(basis, bar(f"forecasts, {text}", len(kept.rows)))
            local = None
            if plan.steps:
                begun = found[-1].local if found else None
                local = kept.local(begun, plan, bar(f"network, {text}", plan.steps))
            found.append(Stage(linear, local))
            kept.advance(local)
        left = kept.wrong()
    return found, left / _plain(forecaster, reader, judge, hours)


def _chosen(reader: Reader, positions: np.ndarray, hours: int, count: int) -> np.ndarray:
    """Steps, evenly in time, whose truth is in their own run."""
    every = within_run(reader.archive, positions, hours // hours_of(reader.archive))
    if not len(every):
        raise GapzooError("no forecasts to fit a correction to")
    return every[np.linspace(0, len(every) - 1, min(count, len(every))).astype(int)]


def _plain(forecaster: Forecaster, reader: Reader, rows: np.ndarray, hours: int) -> float:
    """Mean square of a forecaster's errors from steps, over the globe."""
    total = 0.0
    for part in np.array_split(rows, -(-len(rows) // BATCH)):
        truth = reader.state(part + hours // hours_of(reader.archive))
        found = _forecasts(forecaster, reader, reader.state(part), part, 0, hours)
        total += _square(reader, found - truth) * len(part)
    return total / len(rows)


def _forecasts(
    forecaster: Forecaster, reader: Reader, start: Tensor, rows: np.ndarray, after: int, hours: int
) -> Tensor:
    """None drawn at random, from states (N, C, H, W) some hours after steps, with their forcing."""
    times = reader.archive.times[rows] + pd.Timedelta(hours=after)
    nobody = [None] * len(rows)
    seas = list(reader.forcing(rows))
    each = forecaster.steps(list(start.split(1)), list(times), hours, seas, nobody)  # type: ignore[arg-type]
    return torch.cat(each)


def _square(reader: Reader, error: Tensor) -> float:
    area = torch.from_numpy(reader.world.grid.area_weights).float()[:, None]
    return float((error.square() * area).mean())


class _Kept:
    """Starts, forecasts, tendencies and truths of a stage, in files.

    Args:
        folder: to be emptied by others.
        reader: of the archive.
        rows: steps that are learned from, in order, and steps that judge.
        forecaster: plain.
        lead: of a stage, hours.
    """

    def __init__(
        self,
        folder: Path,
        reader: Reader,
        rows: tuple[np.ndarray, np.ndarray],
        forecaster: Forecaster,
        lead: int,
    ) -> None:
        self.reader, self.plain, self.lead, self.after = reader, forecaster, lead, 0
        self.rows, self.learned = np.concatenate(rows), len(rows[0])
        self.maker = Corrected(forecaster, {})
        shape = (len(self.rows), *reader.world.shape)
        _room(folder, 4 * 2 * math.prod(shape))
        self.start, self.forecast, self.flow, self.truth = (
            np.memmap(folder / name, np.float16, "w+", shape=shape)
            for name in ("start", "forecast", "flow", "truth")
        )
        self.sea = reader.forcing(self.rows)
        for part in self._parts():
            self.start[part] = reader.state(self.rows[part]).half().numpy()

    def _parts(self) -> Iterator[slice]:
        """Batches that are either learned from or judge."""
        ends = [*range(0, self.learned, BATCH), *range(self.learned, len(self.rows), BATCH)]
        yield from (slice(a, b) for a, b in itertools.pairwise([*ends, len(self.rows)]))

    def run(self, basis: ZonalCovariance, progress: Callable[[int], object]) -> Correction:
        """Make the forecasts of the next stage, and correct them by matrices that are fitted."""
        fit, late = Fit(basis), int((1 - LATE) * self.learned)
        for part in self._parts():
            made = self._made(part)
            if part.start < self.learned:
                fit.add(*made, late=part.stop > late)
            progress(len(made[0]))
        free, _ = fit.solve()
        linear = free.bounded(self._changes(free))
        for part in self._parts():
            self.forecast[part] = self.maker.within(self._linear(linear, part)).half().numpy()
        self.after += self.lead
        return linear

    def _linear(self, linear: Correction, part: slice) -> Tensor:
        given = _tensor(self.forecast[part]), _tensor(self.start[part])
        return linear(*given, self._flow(part))

    def _changes(self, linear: Correction) -> Iterator[Tensor]:
        """What matrices add to some of the forecasts that they were fitted to."""
        learned = [part for part in self._parts() if part.start < self.learned]
        for part in learned[:: max(1, len(learned) // USUAL)]:
            yield self._linear(linear, part) - _tensor(self.forecast[part])

    def _made(self, part: slice) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Forecasts, truths, starts, tendencies of a batch, kept."""
        rows, start = self.rows[part], _tensor(self.start[part])
        forecast = _forecasts(self.plain, self.reader, start, rows, self.after, self.lead)
        times = self.reader.archive.times[rows] + pd.Timedelta(hours=self.after)
        flow = self.maker.flow(forecast, start, times, self.lead)
        truth = self.reader.state(rows + (self.after + self.lead) // hours_of(self.reader.archive))
        self.forecast[part], self.truth[part] = forecast.half().numpy(), truth.half().numpy()
        if flow is not None:
            self.flow[part] = flow.half().numpy()
        return forecast, truth, start, flow

    def local(
        self, begun: Corrector | None, plan: Plan, progress: Callable[[int], object]
    ) -> Corrector:
        """Train a network on what the matrices leave, from that of the stage before."""
        first = copy.deepcopy(begun) if begun else new_corrector(self.reader.world, plan)
        learned = np.arange(self.learned)
        return train_corrector(first, self._sample, learned, plan, progress)

    def _sample(self, numbers: np.ndarray | slice) -> Sample:
        start = self.after - self.lead
        return Sample(
            forecast=_tensor(self.forecast[numbers]),
            start=_tensor(self.start[numbers]),
            flow=self._flow(numbers),
            truth=_tensor(self.truth[numbers]),
            times=self.reader.archive.times[self.rows[numbers]] + pd.Timedelta(hours=start),
            forcing=self.sea[numbers],
        )

    def advance(self, local: Corrector | None) -> None:
        """Make what the stage gives the next one's starts."""
        for part in self._parts():
            s = self._sample(part)
            found = s.forecast
            if local is not None:
                found = self.maker.within(local(found, s.start, s.flow, s.times, s.forcing))
            self.start[part] = found.half().numpy()

    def wrong(self) -> float:
        """Mean square of the judges' errors, once the last stage is done."""
        found = _tensor(self.start[self.learned :]) - _tensor(self.truth[self.learned :])
        return _square(self.reader, found)

    def _flow(self, numbers: np.ndarray | slice) -> Tensor | None:
        return None if self.maker.adiabatic is None else _tensor(self.flow[numbers])


def _tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(array.astype(np.float32))


def _room(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise GapzooError(
            f"{needed / 1e9:.1f} GB of temporary files, where {folder.parent} has "
            f"{free / 1e9:.1f} GB; name a folder with more in the variable TMPDIR"
        )
