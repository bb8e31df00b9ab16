"""What is in an archive, as a person asks for it: variables, levels, period, gaps, size, state."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from gapzoo.core import VARIABLES, Grid
from gapzoo.data.archive import Archive


@dataclass(frozen=True)
class Row:
    """One channel of the state, or one forcing.

    Args:
        name: of the variable.
        level: None without one.
        units: SI.
        mean: over area and training period; None before there are statistics.
        std: of the values, or of the anomalies of a forcing.
        change: typical difference from one step to the next; None of a forcing.
    """

    name: str
    level: float | None
    units: str
    mean: float | None = None
    std: float | None = None
    change: float | None = None


@dataclass(frozen=True)
class Summary:
    """An archive's contents.

    Args:
        world, source, license: as the archive says.
        grid: horizontal grid.
        level_kind: ``sigma`` or ``pressure``.
        state: a row a channel.
        forcing: a row a forcing.
        static: names of static fields.
        times: of the steps.
        gaps: (last time before, first time after) of each gap in time.
        runs: unbroken stretches; a joint without a gap lies between two realisations.
        shards: how many are written, and how many there will be.
        bytes: on disk; None where it is not local.
        hash: of what it holds and its statistics.
    """

    world: str
    source: str
    license: str
    grid: Grid
    level_kind: str
    state: tuple[Row, ...]
    forcing: tuple[Row, ...]
    static: tuple[str, ...]
    times: pd.DatetimeIndex
    gaps: tuple[tuple[pd.Timestamp, pd.Timestamp], ...]
    runs: int
    shards: tuple[int, int]
    bytes: int | None
    hash: str

    @property
    def step(self) -> pd.Timedelta | None:
        """The shortest time between steps; None of a single one."""
        if len(self.times) < 2:
            return None
        change = self.times[1:] - self.times[:-1]
        return pd.Timedelta(change[change > pd.Timedelta(0)].min())

    @property
    def missing(self) -> int:
        """Steps that lie in gaps."""
        step = self.step
        return 0 if step is None else sum(round((b - a) / step) - 1 for a, b in self.gaps)


def summarise(archive: Archive) -> Summary:
    """Everything but the states themselves; nothing large is read."""
    known = archive.attributes
    return Summary(
        world=str(known.get("world", archive.path.stem)),
        source=str(known.get("source", "unknown")),
        license=str(known.get("license", "unknown")),
        grid=archive.grid,
        level_kind=archive.channels.level_kind,
        state=_state(archive),
        forcing=_forcing(archive),
        static=tuple(known["static_channels"]),
        times=archive.times,
        gaps=_gaps(archive.times),
        runs=len(np.unique(archive.runs)),
        shards=_shards(archive),
        bytes=_bytes(archive.path),
        hash=archive.hash,
    )


def _state(archive: Archive) -> tuple[Row, ...]:
    found = _statistics(archive, ("mean", "std", "diff_std"), len(archive.channels))
    units = archive.attributes.get("units") or [c.units for c in archive.channels]
    return tuple(
        Row(c.variable, c.level, u, *values)
        for c, u, values in zip(archive.channels, units, found, strict=True)
    )


def _forcing(archive: Archive) -> tuple[Row, ...]:
    names = archive.forcing_channels
    units = [VARIABLES[n].units if n in VARIABLES else "1" for n in names]
    if "forcing_climatology" not in archive.root:
        return tuple(Row(n, None, u) for n, u in zip(names, units, strict=True))
    weights = archive.grid.area_weights[:, None] / np.prod(archive.grid.shape)
    means = (archive.array("forcing_climatology")[0] * weights).sum((1, 2))
    spread = archive.array("forcing_std")
    rows = zip(names, units, means, spread, strict=True)
    return tuple(Row(n, None, u, float(m), float(s)) for n, u, m, s in rows)


def _statistics(archive: Archive, names: tuple[str, ...], count: int) -> list[tuple[Any, ...]]:
    if any(n not in archive.root for n in names):
        return [(None,) * len(names)] * count
    return [tuple(map(float, row)) for row in zip(*map(archive.array, names), strict=True)]


def _gaps(times: pd.DatetimeIndex) -> tuple[tuple[pd.Timestamp, pd.Timestamp], ...]:
    change = times[1:] - times[:-1]
    if not len(change):
        return ()
    shortest = change[change > pd.Timedelta(0)].min()
    return tuple((times[n], times[n + 1]) for n in np.flatnonzero(change > shortest))


def _shards(archive: Archive) -> tuple[int, int]:
    total = -(-len(archive.times) // archive.shard)
    chunks = archive.path / "state" / "c"
    if not archive.path.is_dir():
        return total, total
    return sum(1 for _ in chunks.glob("*/0/0/0")), total


def _bytes(path: Path) -> int | None:
    if not path.is_dir():
        return None
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
