"""Tiny synthetic worlds whose every statistic is known, and a source that fills archives of them.

    x(t) = m + a cos(w d) + b sin(w d) + s e(t),     e(t) = r e(t-1) + sqrt(1 - r^2) z(t)

by channel, with a level that falls towards the poles; z is white noise. Building a source with a
``Fault`` makes it known to the processes of a build, since its class is found in this module.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from gapzoo.core import Channels, GapzooError, Grid
from gapzoo.core.climatology import Climatology, harmonics
from gapzoo.core.random import derive_seed
from gapzoo.core.world import World
from gapzoo.data import SOURCES, statistics
from gapzoo.data.archive import SHARD, Archive, ArchiveSpec, create, write_shard
from gapzoo.data.build import Segment

NAMES = ("temperature@0.2", "temperature@0.95", "surface_pressure")
MEAN = np.array([220.0, 280.0, 98000.0])
COSINE = np.array([-3.0, -8.0, 200.0])
SINE = np.array([1.0, 2.0, -100.0])
SPREAD = np.array([2.0, 4.0, 500.0])
FORCINGS = ("sea_surface_temperature", "sea_ice_cover")
MEMORY = 0.8


def grid_of(height: int = 4, width: int = 8) -> Grid:
    """An even grid without points at the poles, from the south."""
    step = 180 / height
    latitude = -90 + step * (np.arange(height) + 0.5)
    return Grid(tuple(latitude), tuple(360 / width * np.arange(width)))


@dataclass(frozen=True)
class Fault:
    """Raise once before this shard, leaving ``marker`` behind; never where it is negative."""

    shard: int = -1
    marker: str = ""

    def strike(self, shard: int) -> None:
        if shard == self.shard and not Path(self.marker).exists():
            Path(self.marker).touch()
            raise RuntimeError(f"killed before shard {shard}")


@SOURCES.register("toy")
class ToySource:
    """See the module; a segment keeps its restart point as SPEEDY does."""

    def __init__(
        self,
        *,
        start: str = "1979-01-01",
        end: str = "1980-12-31",
        hours: int = 24,
        seed: int = 0,
        noise: float = 1.0,
        segment_shards: int = 2,
        height: int = 4,
        width: int = 8,
        names: tuple[str, ...] = NAMES,
        hole: int = -1,
        fault: Fault | None = None,
        realisations: int = 1,
    ) -> None:
        last = pd.Timestamp(end) + pd.Timedelta(days=1) - pd.Timedelta(hours=hours)
        one = pd.date_range(start, last, freq=f"{hours}h")
        self.times = one.append([one] * (realisations - 1))
        self.grid, self.seed, self.noise, self.names = grid_of(height, width), seed, noise, names
        self.segment_shards, self.hole, self.fault = segment_shards, hole, fault or Fault()
        self.memory = MEMORY ** (hours / 24)

    def spec(self) -> ArchiveSpec:
        runs = np.arange(len(self.times)) // (SHARD * self.segment_shards)
        static = {"geopotential_at_surface": self.pattern() * 981.0, "land_sea_mask": self.land()}
        channels = Channels(self.names, "sigma")
        attributes = {"world": "toy", "license": "CC0-1.0", "seed": self.seed}
        return ArchiveSpec(self.grid, channels, FORCINGS, static, self.times, runs, attributes)

    def segments(self) -> list[Segment]:
        shards, size = -(-len(self.times) // SHARD), self.segment_shards
        starts = range(0, shards, size)
        return [Segment(n, s, min(s + size, shards)) for n, s in enumerate(starts)]

    def blocks(
        self, segment: Segment, scratch: Path
    ) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        restart = scratch / f"toy-{segment.number}.npz"
        first, e = segment.first, np.zeros((len(self.names), *self.grid.shape))
        if restart.exists():
            with np.load(restart) as file:
                first, e = int(file["shard"]), file["e"]
        for shard in range(first, segment.last):
            self.fault.strike(shard)
            e, states, forcing = self.shard(shard, e)
            yield shard, states, forcing
            np.savez(restart, shard=shard + 1, e=e)

    def shard(self, shard: int, e: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The noise carried on, states (T,C,H,W), forcing (T,F,H,W)."""
        times = self.times[shard * SHARD : (shard + 1) * SHARD]
        draws = np.random.default_rng(derive_seed(self.seed, "shard", shard))
        r, anomalies = self.memory, []
        for _ in times:
            e = r * e + np.sqrt(1 - r**2) * draws.standard_normal(e.shape)
            anomalies.append(e)
        rows = [NAMES.index(n) for n in self.names]
        spread = self.noise * SPREAD[rows, None, None]
        states = climate(times, self.grid)[:, rows] + spread * np.stack(anomalies)
        if self.hole // SHARD == shard:
            states[self.hole % SHARD, 0, 1, 2] = np.nan
        return e, states.astype(np.float32), self.forcing(times, draws)

    def forcing(self, times: pd.DatetimeIndex, draws: np.random.Generator) -> np.ndarray:
        warm = 290 + 5 * harmonics(times, 1)[:, 1] + draws.standard_normal(len(times))
        warm = warm[:, None, None] + self.pattern()
        return np.stack([warm, np.broadcast_to(self.land() / 2, warm.shape)], 1)

    def pattern(self) -> np.ndarray:
        return np.arange(np.prod(self.grid.shape), dtype=float).reshape(self.grid.shape)

    def land(self) -> np.ndarray:
        return (self.pattern() % 3 == 0).astype(float)


def climate(times: pd.DatetimeIndex, grid: Grid) -> np.ndarray:
    """(T,C,H,W) exact climatological mean of the toy source."""
    basis = harmonics(times, 1)
    tilt = np.cos(np.deg2rad(grid.latitude))[:, None] * np.ones(grid.shape)
    coefficients = np.stack([MEAN, COSINE, SINE])[:, :, None, None] * tilt
    return np.tensordot(basis, coefficients, 1)


def fill(path: Path, source: ToySource) -> None:
    """Write what a source gives, in this process, without statistics."""
    spec = source.spec()
    create(path, spec)
    for segment in source.segments():
        carried = np.zeros((len(spec.channels), *spec.grid.shape))
        for shard in range(segment.first, segment.last):
            carried, states, forcing = source.shard(shard, carried)
            write_shard(path, shard, states, forcing)


def toy_archive(path: Path, train: tuple[str, str] = ("1979-01-01", "1979-12-31"), **arguments):
    """A finished archive of the toy source, made in this process."""
    fill(path, ToySource(**arguments))
    statistics.store(path, statistics.compute(Archive(path), *train))
    return Archive(path)


def flat_world(channels: int = 1, height: int = 2, width: int = 8, hours: int = 24) -> World:
    """A world whose normalised states are its states: climatology 0, spread 1 everywhere."""
    shape = (1, channels, height, width)
    names = [f"temperature@{n + 1}" for n in range(channels)]
    return World(
        name="flat",
        grid=grid_of(height, width),
        channels=Channels(names, "pressure"),
        hours=hours,
        climatology=Climatology(np.zeros(shape, np.float32), np.ones(shape, np.float32)),
        diff_std=np.ones(channels),
        forcing_channels=("sea_surface_temperature",),
        forcing_climatology=np.zeros((1, 1, height, width), np.float32),
        forcing_std=np.ones(1),
        static=np.zeros((0, height, width)),
        static_channels=(),
    )


def expect(error: type[Exception] = GapzooError, *parts: str):
    """``pytest.raises`` for a message with all of these parts in this order."""
    import re

    import pytest

    return pytest.raises(error, match="(?s)" + ".*".join(re.escape(p) for p in parts))
