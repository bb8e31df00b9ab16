"""Where runs begin: the truth of an archive, the analyses of a run of ``gapzoo assimilate``, the
prior itself; and runs' folders, which belong to one recipe.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import xarray as xr
import zarr
from torch import Tensor

from gapzoo.core import GapzooError, Grid, MemberGenerator
from gapzoo.core.world import World
from gapzoo.data.archive import FORMAT, Archive
from gapzoo.data.module import Reader
from gapzoo.diffusion.prior import Prior
from gapzoo.tasks.sampling import Sampling

SEASON_DAYS = 15
"""States this near in the time of year make perturbations."""


@dataclass(frozen=True)
class Truth:
    """States of an archive, alike for all members but for a perturbation.

    Args:
        archive: of the world's channels.
        world: normalises them.
        perturb: added to each member: this times the difference of two random states of the
            archive's training years, of the same time of year, over the square root of two.
    """

    archive: Archive
    world: World
    perturb: float = 0.0

    @cached_property
    def reader(self) -> Reader:
        """Of normalised states."""
        return Reader(self.archive, self.world)

    def states(self, time: pd.Timestamp, generator: MemberGenerator) -> Tensor:
        """(M, C, H, W) normalised; raises GapzooError for a time that is not there."""
        row = self.archive.find([time])
        if row[0] < 0:
            raise GapzooError(f"{self.archive.path} has no state of {time}")
        state = self.reader.state(row).expand(len(generator), -1, -1, -1)
        return state + self._noise(time, generator) if self.perturb else state.clone()

    def _noise(self, time: pd.Timestamp, generator: MemberGenerator) -> Tensor:
        train = self.world.details.get("train", (None, None))
        rows = self.archive.indices(train[0], train[1])
        days = self.archive.times[rows].dayofyear.to_numpy()
        season = rows[np.abs((days - time.dayofyear + 182) % 365 - 182) <= SEASON_DAYS]
        at = (generator.fork("perturb", time).rand((len(generator), 2)) * len(season)).long()
        pairs = season[at.cpu().numpy()]
        both = self.reader.state(pairs.ravel()).unflatten(0, (-1, 2))
        return self.perturb * (both[:, 0] - both[:, 1]) / 2**0.5


@dataclass(frozen=True)
class Analyses:
    """States of a store of analyses in the layout of WeatherBench 2.

    Member k starts from the store's member k, and again from the first beyond its last.

    Args:
        path: such as ``analyses.zarr``.
        world: its channels must be in the store, on its grid.
    """

    path: Path
    world: World

    def states(self, time: pd.Timestamp, generator: MemberGenerator) -> Tensor:
        """(M, C, H, W) normalised; raises GapzooError for a time that is not there."""
        with _open(self.path) as data:
            stamps = pd.DatetimeIndex(data["time"].values)
            if time not in stamps:
                raise GapzooError(
                    f"{self.path} has no analysis of {time}; it covers {stamps[0]} to {stamps[-1]}"
                )
            one = data.isel(time=stamps.get_loc(time))
            if "written" in one and not int(one["written"].min()):
                raise GapzooError(f"{self.path}: the analysis of {time} was never written")
            physical = torch.from_numpy(stacked(one, self.world))
        states = self.world.normalise(physical[None], pd.DatetimeIndex([time]))[0]
        states = states if states.ndim == 4 else states[None]
        return states[[m % len(states) for m in generator.members]]


@dataclass(frozen=True)
class Drawn:
    """States drawn from the prior, unconstrained but for the forcing's climatology.

    Args:
        prior: to draw from.
        world: of its states.
        sampling: how.
    """

    prior: Prior
    world: World
    sampling: Sampling

    def states(self, time: pd.Timestamp, generator: MemberGenerator) -> Tensor:
        """(M, C, H, W) normalised."""
        forcing = self.world.condition(pd.DatetimeIndex([time])).to(generator.device)
        streams, shape = generator.fork("initial", time), self.world.shape
        return self.sampling.draw(self.prior, shape, streams, forcing=forcing)


def initial_of(path: str, world: World, perturb: float = 0.0) -> Truth | Analyses:
    """Initial states of an archive or of a store of analyses, told apart by what is there."""
    try:
        attributes = dict(zarr.open_group(path, mode="r").attrs)
    except (FileNotFoundError, OSError, ValueError):
        raise GapzooError(
            f"no initial states at {path}: no archive and no store of analyses; see 'initial'"
        ) from None
    if attributes.get("format") == FORMAT:
        return Truth(Archive(path), world, perturb)
    return Analyses(Path(path), world)


def stacked(data: Any, world: World) -> np.ndarray:
    """([M], C, H, W) float32 of an xarray data set of one valid time, in the world's channels.

    Raises:
        GapzooError: where a channel or the grid is not the world's.
    """
    fields = []
    for channel in world.channels:
        if channel.variable not in data:
            raise GapzooError(f"the initial states have no '{channel.variable}'; {world.name} does")
        field = data[channel.variable]
        if channel.level is not None:
            levels = np.asarray(data["level"].values)
            if not np.isclose(levels, channel.level).any():
                raise GapzooError(f"the initial states have no '{channel.label}'")
            field = field.isel(level=int(np.abs(levels - channel.level).argmin()))
        fields.append(field.values.astype(np.float32))
    own = Grid(tuple(data["latitude"].values), tuple(data["longitude"].values))
    if not own.matches(world.grid):
        raise GapzooError(
            f"the initial states have a grid of {own.shape}, {world.name} one of "
            f"{world.grid.shape} or other points; regrid them"
        )
    return np.stack(fields, -3)


def claim(folder: Path, identity: str) -> None:
    """Make a folder a run's own; raises GapzooError where it holds the run of another recipe."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "recipe.yaml"
    if path.exists() and path.read_text() != identity:
        raise GapzooError(f"{folder} holds another run; give another --output or remove it")
    part = path.with_suffix(".part")
    part.write_text(identity)
    part.replace(path)


def _open(path: Path) -> xr.Dataset:
    coder = xr.coders.CFDatetimeCoder(time_unit="us")
    return xr.open_zarr(path, chunks=None, decode_timedelta=True, decode_times=coder)
