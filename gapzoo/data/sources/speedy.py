"""SPEEDY as a source: years of a published atmospheric model under the observed SST of 1979-2013.

Segments of some years start from rest with their own seed and a spin-up that is thrown away, so
they can be made side by side; at a joint ``run`` changes, and readers of pairs skip it. They are
made one by one (``blocks``), or all in one batch (``rounds``), which a GPU takes; both keep the
same restart points, so that either goes on where the other was stopped.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from gapzoo.core import GapzooError
from gapzoo.core.random import derive_seed
from gapzoo.data import SOURCES
from gapzoo.data.archive import SHARD, ArchiveSpec
from gapzoo.data.build import Block, Segment
from gapzoo.speedy.batch import Runs, Together, stacked
from gapzoo.speedy.boundary import land_fraction
from gapzoo.speedy.model import Run, SpeedyModel, ocean, start_jax


class Stretch(NamedTuple):
    """Frames that are made in one go: a shard, or part of a spin-up, whose ``shard`` is None."""

    shard: int | None
    times: pd.DatetimeIndex


@SOURCES.register("speedy")
class SpeedySource:
    """Years of SPEEDY.

    Args:
        truncation: 21 (64x32) or 31 (96x48).
        start: first day.
        end: last day, month or year, inclusive.
        hours: time between steps.
        seed: of the first perturbations; another seed is another realisation of the same years.
        spin_up_days: thrown away at the start of each segment; by 150 the southern annular mode,
            the last of the scored fields, has settled.
        segment_shards: length of a segment in shards of 120 steps (30 days of 6 h).
        sst: ``observed`` anomalies or the ``climatology``.
        sst_offset: K added to the SST, for a changed climate.
        parameters: changed physics, as SpeedyModel takes them.
        realisations: the same years so many times, one after the other, their times repeated, and
            each cut to whole shards where there are several.
    """

    def __init__(
        self,
        *,
        truncation: int = 21,
        start: str = "1979-01-01",
        end: str = "2013-12-31",
        hours: int = 6,
        seed: int = 0,
        spin_up_days: int = 180,
        segment_shards: int = 30,
        sst: str = "observed",
        sst_offset: float = 0.0,
        parameters: dict[str, float] | None = None,
        realisations: int = 1,
    ) -> None:
        if sst not in ("observed", "climatology"):
            raise GapzooError(f"sst '{sst}'; it is 'observed' or 'climatology'")
        if pd.Period(end).end_time < pd.Timestamp(start):
            raise GapzooError(f"end {end} lies before start {start}; swap them")
        if realisations < 1:
            raise GapzooError(f"realisations is {realisations}; it is 1 or more")
        self.arguments = {k: v for k, v in locals().items() if k not in ("self",)}
        if realisations == 1:  # archives of one were laid out before there could be several
            self.arguments.pop("realisations")
        self.truncation, self.hours, self.seed, self.sst = truncation, hours, seed, sst
        self.spin_up, self.segment_shards = pd.Timedelta(days=spin_up_days), segment_shards
        self.sst_offset, self.parameters = sst_offset, parameters
        last = pd.Period(end).end_time.ceil("D") - pd.Timedelta(hours=hours)
        self.times = _repeated(pd.date_range(start, last, freq=f"{hours}h"), realisations)
        self.realisations = realisations

    @cached_property
    def model(self) -> SpeedyModel:
        """The simulator; built on first use."""
        return SpeedyModel(self.truncation, hours=self.hours, parameters=self.parameters)

    @cached_property
    def together(self) -> Together:
        """The simulator for many runs at a time; compiled on first use."""
        return Together(self.model, SHARD)

    def segments(self) -> list[Segment]:
        """Rows of ``segment_shards`` shards, of one realisation after the other."""
        shards = -(-len(self.times) // self.realisations // SHARD)
        size = self.segment_shards
        starts = [(r, s) for r in range(self.realisations) for s in range(0, shards, size)]
        return [
            Segment(n, r * shards + s, r * shards + min(s + size, shards))
            for n, (r, s) in enumerate(starts)
        ]

    def spec(self) -> ArchiveSpec:
        """Layout of the archive."""
        if self.sst == "observed":
            self._ocean.anomaly(self.times[[0, -1]])  # refuses years without SST before it runs
        land, ground = land_fraction(self.model.grid), self.model.surface_geopotential
        attributes: dict[str, Any] = {
            "world": f"speedy-t{self.truncation}",
            "source": "SPEEDY physics on the dinosaur spectral core, jcm 3.0.0",
            "license": "CC0-1.0",
            "sigma_edges": self.model.sigma_edges.round(6).tolist(),
            "arguments": self.arguments,
        }
        return ArchiveSpec(
            self.model.grid,
            self.model.channels,
            ("sea_surface_temperature", "sea_ice_cover"),
            {"geopotential_at_surface": ground, "land_sea_mask": land},
            self.times,
            self._runs(),
            attributes,
        )

    def _runs(self) -> np.ndarray:
        """(T,) number of the segment of each step."""
        sizes = [(s.last - s.first) * SHARD for s in self.segments()]
        return np.repeat(np.arange(len(sizes)), sizes)[: len(self.times)]

    def blocks(
        self, segment: Segment, scratch: Path
    ) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """Integrate a segment shard by shard from its last restart point."""
        run, stretches = self._begin(segment, scratch)
        for shard, times in stretches:
            # A frame is the state at its end, so the run starts one step before its first time.
            run, frames = self.model.advance(run, self._sst(times))
            if shard is not None:
                yield shard, frames, self._forcing(times)
                _save(_restart(segment, scratch), run, shard + 1)

    def accelerate(self) -> None:
        """Have JAX take a GPU where it finds one; before anything else is asked of the source."""
        start_jax(anywhere=True)

    def rounds(self, segments: list[Segment], scratch: Path) -> Iterator[list[Block]]:
        """Integrate all segments side by side, a shard of each at a time.

        Those that are done wait, so that a resumed build is that of an uninterrupted one to the
        bit. While blocks are written, the next are computed where JAX has a device for it.
        """
        begun = [self._begin(segment, scratch) for segment in segments]
        runs = stacked([run for run, _ in begun])
        before: tuple[Runs, Any, Any] | None = None
        for stretches in zip_longest(*(stretches for _, stretches in begun)):
            runs, frames = self.together.advance(runs, [self._over(one) for one in stretches])
            if before:
                yield from self._made(segments, scratch, *before)
            before = runs, frames, stretches
        if before:
            yield from self._made(segments, scratch, *before)

    def _made(
        self, segments: list[Segment], scratch: Path, runs: Runs, frames: Any, stretches: Any
    ) -> Iterator[list[Block]]:
        """The blocks of a round, then the restart points behind them."""
        host, made = np.asarray(frames), []
        for row, one in enumerate(stretches):
            if one is not None and one.shard is not None:
                states = host[: len(one.times), row]
                made.append(Block(segments[row], one.shard, states, self._forcing(one.times)))
        yield made
        after = {segment.number: run for segment, run in zip(segments, runs.split(), strict=True)}
        for block in made:
            _save(_restart(block.segment, scratch), after[block.segment.number], block.shard + 1)

    def _begin(self, segment: Segment, scratch: Path) -> tuple[Run, list[Stretch]]:
        """Where a segment stands, and what is still to be made of it."""
        first = self.times[segment.first * SHARD] - pd.Timedelta(hours=self.hours)
        seed = derive_seed(self.seed, "segment", segment.number) % 2**31
        run, begin = self.model.start(first - self.spin_up, seed), segment.first
        stretches = []
        if segment.done(scratch) >= segment.last:
            return run, []
        if _restart(segment, scratch).exists():
            begin, run = _load(_restart(segment, scratch), run)
        else:
            spin_up = pd.date_range(run.time, first, freq=f"{self.hours}h", inclusive="right")
            parts = range(0, len(spin_up), SHARD)
            stretches = [Stretch(None, spin_up[part : part + SHARD]) for part in parts]
        for shard in range(begin, segment.last):
            stretches.append(Stretch(shard, self.times[shard * SHARD : (shard + 1) * SHARD]))
        return run, stretches

    def _over(self, stretch: Stretch | None) -> np.ndarray:
        """(T, H, W) SST of a stretch; of none, no row."""
        none = np.zeros((0, *self.model.grid.shape), np.float32)
        return none if stretch is None else self._sst(stretch.times)

    @cached_property
    def _ocean(self) -> Any:
        return ocean(self.model, self.sst_offset)

    def _sst(self, times: pd.DatetimeIndex) -> np.ndarray:
        if self.sst == "climatology":
            return self._ocean.climatology(times)[0]
        first = self._ocean.period[0]
        known = times.where(times >= first, first)  # a spin-up before 1979 holds the first month
        return self._ocean.sst(times, self._ocean.anomaly(known))

    def _forcing(self, times: pd.DatetimeIndex) -> np.ndarray:
        return np.stack([self._sst(times), self._ocean.climatology(times)[1]], 1)


def _repeated(times: pd.DatetimeIndex, realisations: int) -> pd.DatetimeIndex:
    """Times of all realisations; of several, whole shards of each."""
    if realisations == 1:
        return times
    whole = times[: len(times) // SHARD * SHARD]
    if not len(whole):
        raise GapzooError(
            f"{len(times)} steps of {realisations} realisations; each needs a shard of {SHARD} or "
            "more, take a later end"
        )
    return whole.append([whole] * (realisations - 1))


def _restart(segment: Segment, scratch: Path) -> Path:
    return scratch / f"segment-{segment.number:04d}.npz"


def _save(path: Path, run: Run, shard: int) -> None:
    leaves = start_jax().tree_util.tree_leaves((run.dynamics, run.physics))
    arrays: dict[str, Any] = {f"leaf{n}": np.asarray(leaf) for n, leaf in enumerate(leaves)}
    arrays |= {"shard": np.int64(shard), "time": np.datetime64(run.time)}
    part = path.with_suffix(".part.npz")
    np.savez(part, **arrays)
    part.replace(path)


def _load(path: Path, template: Run) -> tuple[int, Run]:
    tree = start_jax().tree_util
    _, structure = tree.tree_flatten((template.dynamics, template.physics))
    with np.load(path, allow_pickle=False) as file:
        leaves = [file[f"leaf{n}"] for n in range(structure.num_leaves)]
        time, shard = pd.Timestamp(file["time"][()]), int(file["shard"])
    dynamics, physics = tree.tree_unflatten(structure, leaves)
    return shard, Run(dynamics, physics, time)
