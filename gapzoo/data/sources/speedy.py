"""SPEEDY as a source: years of a published atmospheric model under the observed SST of 1979-2013.

Segments of some years start from rest with their own seed and a spin-up that is thrown away, so
they can be made side by side; at a joint ``run`` changes, and readers of pairs skip it.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from gapzoo.core import GapzooError
from gapzoo.core.random import derive_seed
from gapzoo.data import SOURCES
from gapzoo.data.archive import SHARD, ArchiveSpec
from gapzoo.data.build import Segment
from gapzoo.speedy.boundary import land_fraction
from gapzoo.speedy.model import Run, SpeedyModel, ocean, start_jax


@SOURCES.register("speedy")
class SpeedySource:
    """Years of SPEEDY.

    Args:
        truncation: 21 (64x32) or 31 (96x48).
        start: first day.
        end: last day, month or year, inclusive.
        hours: time between steps.
        seed: of the first perturbations; another seed is another realisation of the same years.
        spin_up_days: thrown away at the start of each segment.
        segment_shards: length of a segment in shards of 120 steps (30 days of 6 h).
        sst: ``observed`` anomalies or the ``climatology``.
        sst_offset: K added to the SST, for a changed climate.
        parameters: changed physics, as SpeedyModel takes them.
    """

    def __init__(
        self,
        *,
        truncation: int = 21,
        start: str = "1979-01-01",
        end: str = "2013-12-31",
        hours: int = 6,
        seed: int = 0,
        spin_up_days: int = 90,
        segment_shards: int = 30,
        sst: str = "observed",
        sst_offset: float = 0.0,
        parameters: dict[str, float] | None = None,
    ) -> None:
        if sst not in ("observed", "climatology"):
            raise GapzooError(f"sst '{sst}'; it is 'observed' or 'climatology'")
        if pd.Period(end).end_time < pd.Timestamp(start):
            raise GapzooError(f"end {end} lies before start {start}; swap them")
        self.arguments = {k: v for k, v in locals().items() if k not in ("self",)}
        self.truncation, self.hours, self.seed, self.sst = truncation, hours, seed, sst
        self.spin_up, self.segment_shards = pd.Timedelta(days=spin_up_days), segment_shards
        self.sst_offset, self.parameters = sst_offset, parameters
        last = pd.Period(end).end_time.ceil("D") - pd.Timedelta(hours=hours)
        self.times = pd.date_range(start, last, freq=f"{hours}h")

    @cached_property
    def model(self) -> SpeedyModel:
        """The simulator; built on first use."""
        return SpeedyModel(self.truncation, hours=self.hours, parameters=self.parameters)

    def segments(self) -> list[Segment]:
        """Rows of ``segment_shards`` shards."""
        shards, size = -(-len(self.times) // SHARD), self.segment_shards
        starts = range(0, shards, size)
        return [Segment(n, s, min(s + size, shards)) for n, s in enumerate(starts)]

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
            np.arange(len(self.times)) // (SHARD * self.segment_shards),
            attributes,
        )

    def blocks(
        self, segment: Segment, scratch: Path
    ) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """Integrate a segment shard by shard from its last restart point."""
        restart = scratch / f"segment-{segment.number:04d}.npz"
        shard, run = self._resume(segment, restart)
        for shard in range(shard, segment.last):  # noqa: B020
            times = self.times[shard * SHARD : (shard + 1) * SHARD]
            # A frame is the state at its end, so the run starts one step before its first time.
            run, frames = self.model.advance(run, self._sst(times))
            yield shard, frames, self._forcing(times)
            _save(restart, run, shard + 1)

    def _resume(self, segment: Segment, restart: Path) -> tuple[int, Run]:
        first = self.times[segment.first * SHARD] - pd.Timedelta(hours=self.hours)
        seed = derive_seed(self.seed, "segment", segment.number) % 2**31
        run = self.model.start(first - self.spin_up, seed)
        if restart.exists():
            return _load(restart, run)
        spin_up = pd.date_range(run.time, first, freq=f"{self.hours}h", inclusive="right")
        for part in range(0, len(spin_up), SHARD):
            run, _ = self.model.advance(run, self._sst(spin_up[part : part + SHARD]))
        return segment.first, run

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
