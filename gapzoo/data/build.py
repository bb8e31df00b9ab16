"""Fill an archive from a source: side by side, resumable at any moment, the same to the bit.

The work falls into segments, each a row of whole shards. A segment does not depend on any other,
so it does not matter how many are worked on, nor by whom (gapzoo.data.workers); within one, a
shard is written before the source's own restart file moves on, so a kill costs at most the shard
under way.

A source that computes all segments in one batch may do so instead (``together``), on an
accelerator where there is one.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

from gapzoo.core import GapzooError
from gapzoo.data import SOURCES, statistics
from gapzoo.data.archive import Archive, ArchiveSpec, create, write_shard
from gapzoo.data.workers import Workers


@dataclass(frozen=True)
class Segment:
    """Shards ``first`` (inclusive) to ``last`` (exclusive), made one after the other."""

    number: int
    first: int
    last: int

    def done(self, scratch: Path) -> int:
        """The first shard that is still to be made, by the marker in ``scratch``."""
        marker = self.marker(scratch)
        return int(marker.read_text()) if marker.exists() else self.first

    def marker(self, scratch: Path) -> Path:
        """File that counts what is done; of these shards alone, however the work is parted."""
        return scratch / f"segment-{self.first:04d}-{self.last:04d}.done"


class Block(NamedTuple):
    """A shard that was made: state (T,C,H,W), forcing (T,K,H,W)."""

    segment: Segment
    shard: int
    state: np.ndarray
    forcing: np.ndarray


class Source(Protocol):
    """Anything that can fill an archive.

    One that sets ``threads = True`` is worked on by threads of one process where it is built on
    one machine, any other by processes.
    """

    def spec(self) -> ArchiveSpec:
        """What the archive will hold."""
        ...

    def segments(self) -> list[Segment]:
        """The independent parts of the work."""
        ...

    def blocks(
        self, segment: Segment, scratch: Path
    ) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """Yield (shard, state (T,C,H,W), forcing (T,K,H,W)) for what is still to be done.

        A restart point kept in ``scratch`` may only move past a shard once the next one is asked
        for: by then it is written.
        """
        ...


@runtime_checkable
class Batched(Source, Protocol):
    """A source that can work on all of its segments in one batch."""

    def accelerate(self) -> None:
        """Take an accelerator where there is one; called before anything else."""
        ...

    def rounds(self, segments: list[Segment], scratch: Path) -> Iterator[list[Block]]:
        """Yield what is still to be done, some blocks at a time.

        As of ``blocks``, restart points move past a shard once the next round is asked for.
        """
        ...


WRITERS = 8
"""Threads that write the blocks of a round."""


@dataclass(frozen=True)
class Build:
    """One archive to make.

    Args:
        source: registered name of the source.
        arguments: the source's own arguments.
        output: folder of the store.
        train: first and last day of the training period, for the statistics; None for an archive
            without any, which is read under those of another.
    """

    source: str
    arguments: dict[str, Any]
    output: Path
    train: tuple[str, str] | None

    def run(
        self,
        workers: int | None = None,
        cores: list[int] | None = None,
        scheduler: str | None = None,
        together: bool = False,
    ) -> Archive:
        """Make the archive, or go on making it, and open it.

        Args:
            workers: processes or threads; one a core where None.
            cores: the cores to pin processes to; all there are where None.
            scheduler: address of a dask scheduler, whose workers see the same folders.
            together: all segments in one batch, by this process.
        """
        source: Source = SOURCES.build(self.source, **self.arguments)
        if together:
            self._batched(source).accelerate()
        spec, segments = source.spec(), source.segments()
        create(self.output, spec)
        scratch = self.output / ".build"
        scratch.mkdir(exist_ok=True)
        _adopt(self.output, scratch, segments)
        if together:
            self._fill_together(self._batched(source), segments, spec.shards, scratch)
            return self._finish()
        threads = getattr(source, "threads", False)
        self._fill(segments, spec.shards, Workers(workers, cores, threads, scheduler), scratch)
        return self._finish()

    def _batched(self, source: Source) -> Batched:
        if not isinstance(source, Batched):
            raise GapzooError(f"source '{self.source}' has no batches; leave --together out")
        return source

    def _fill_together(
        self, source: Batched, segments: list[Segment], shards: int, scratch: Path
    ) -> None:
        with ThreadPoolExecutor(WRITERS) as pool, _bar() as bar:
            task = bar.add_task("shards", total=shards, completed=_done(scratch, segments))
            for blocks in source.rounds(segments, scratch):
                for _ in pool.map(lambda block: _keep(self, scratch, block), blocks):
                    bar.update(task, completed=_done(scratch, segments))

    def _fill(self, segments: list[Segment], shards: int, workers: Workers, scratch: Path) -> None:
        with workers.executor(len(segments)) as pool, _bar() as bar:
            task = bar.add_task("shards", total=shards, completed=_done(scratch, segments))
            jobs = [pool.submit(_work, self, segment, scratch) for segment in segments]
            while not all(job.done() for job in jobs):
                bar.update(task, completed=_done(scratch, segments))
                _raise_first(jobs)
                time.sleep(0.1)
            bar.update(task, completed=_done(scratch, segments))
            for job in as_completed(jobs):
                job.result()

    def _finish(self) -> Archive:
        archive = Archive(self.output)
        if self.train is None:
            return archive
        inside = archive.times[(archive.times >= self.train[0]) & (archive.times <= self.train[1])]
        if not len(inside):
            return archive  # no training years in it: truth for a test, with no statistics
        first = str(inside[0])[:10]
        total = 2 * len(archive.indices(first, self.train[1]))
        with _bar() as bar:
            task = bar.add_task("statistics", total=total)
            values = statistics.compute(
                archive, first, self.train[1], lambda n: bar.advance(task, n)
            )
        statistics.store(self.output, values)
        return Archive(self.output)


def _bar() -> Progress:
    columns = ("[progress.description]{task.description}", BarColumn(), MofNCompleteColumn())
    return Progress(*columns, TimeRemainingColumn())


def _work(build: Build, segment: Segment, scratch: Path) -> None:
    if segment.done(scratch) >= segment.last:
        return
    source: Source = SOURCES.build(build.source, **build.arguments)
    for shard, state, forcing in source.blocks(segment, scratch):
        _keep(build, scratch, Block(segment, shard, state, forcing))


def _keep(build: Build, scratch: Path, block: Block) -> None:
    """Write a block, and then that it is done."""
    _refuse_unphysical(build, block.shard, block.state)
    write_shard(build.output, block.shard, block.state, block.forcing)
    replace_text(block.segment.marker(scratch), str(block.shard + 1))


def _refuse_unphysical(build: Build, shard: int, state: np.ndarray) -> None:
    if not np.isfinite(state).all():
        step = int(np.flatnonzero(~np.isfinite(state).all((1, 2, 3)))[0])
        step += shard * Archive(build.output).shard
        raise GapzooError(f"source '{build.source}' gave a value that is not finite at step {step}")


def _adopt(output: Path, scratch: Path, segments: list[Segment]) -> None:
    """Rename markers that an earlier version named by number, where all they count is there."""
    written = {int(file.parts[-4]) for file in (output / "state" / "c").glob("*/0/0/0")}
    for segment in segments:
        old = scratch / f"segment-{segment.number:04d}.done"
        if not old.exists():
            continue
        done = min(int(old.read_text()), segment.last)
        if done > segment.first and written.issuperset(range(segment.first, done)):
            replace_text(segment.marker(scratch), str(done))
        old.unlink()


def _done(scratch: Path, segments: list[Segment]) -> int:
    return sum(s.done(scratch) - s.first for s in segments)


def _raise_first(jobs: list[Any]) -> None:
    for job in jobs:
        if job.done() and job.exception():
            for other in jobs:
                other.cancel()
            raise job.exception()


def replace_text(path: Path, text: str) -> None:
    """Write a small text file whole or not at all."""
    part = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.part")
    part.write_text(text)
    part.replace(path)
