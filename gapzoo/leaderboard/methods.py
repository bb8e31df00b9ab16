"""Methods that make an analysis ensemble: the prior under observations, and its baselines.

A method is prepared for a network and then draws an ensemble for each case; states are normalised.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from gapzoo import checkpoint
from gapzoo.baselines.optimal_interpolation import OptimalInterpolation
from gapzoo.checkpoint import Checkpoint
from gapzoo.core import GapzooError, MemberGenerator, Registry
from gapzoo.core.random import derive_seed
from gapzoo.core.world import World
from gapzoo.data.archive import Archive
from gapzoo.data.module import Reader, world_of
from gapzoo.data.observations import (
    ColumnStations,
    simulate,
    standard_errors,
    station_columns,
)
from gapzoo.tasks.assimilation import Assimilation, constraint
from gapzoo.tasks.sampling import Sampling
from gapzoo.tasks.settings import device_of

METHODS = Registry("entry", "gapzoo.leaderboard")
"""Analysis methods by entry name."""


@dataclass
class Setting:
    """What methods may use: the archive, the world that is scored, years to learn and to tune in.

    Networks compute on the device; states are on the CPU.
    """

    archive: Archive
    world: World
    train: tuple[str, str] = ("1979-01-01", "2003-12-31")
    validate: tuple[str, str] = ("2004-01-01", "2005-12-31")
    device: str = "cpu"

    @cached_property
    def reader(self) -> Reader:
        """Normalised states of the archive."""
        return Reader(self.archive, self.world)

    @cached_property
    def training(self) -> np.ndarray:
        """Steps of the training period."""
        return self.archive.indices(*self.train)

    def sample(self, count: int) -> Tensor:
        """(count, C, H, W) states evenly spread over the training period."""
        rows = np.linspace(0, len(self.training) - 1, count).astype(int)
        return self.reader.state(self.training[rows])


@dataclass
class Network:
    """Stations that observe whole columns with the standard errors."""

    world: World
    fraction: float
    seed: int
    stations: ColumnStations = field(init=False)
    errors: Tensor = field(init=False)

    def __post_init__(self) -> None:
        grid, channels = self.world.grid, self.world.channels
        self.stations = station_columns(grid, channels, self.fraction, self.seed)
        self.errors = standard_errors(self.stations, channels)

    @property
    def positions(self) -> np.ndarray:
        """(n, 2) latitude and longitude of the stations."""
        rows, columns = self.stations.columns.numpy().T
        grid = self.world.grid
        return np.stack([np.array(grid.latitude)[rows], np.array(grid.longitude)[columns]], 1)

    def observe(self, truth: Tensor, seed: int) -> Tensor:
        """(N,) observations of a truth (C, H, W) in SI units."""
        return simulate(truth, self.stations, self.errors, seed)


@dataclass(frozen=True)
class Case:
    """One initial time.

    Args:
        position: step in the archive.
        time: valid time.
        truth: (C, H, W) normalised.
        observations: (N,) in SI units.
        forcing: (F, H, W) anomalies in SI units.
    """

    position: int
    time: pd.Timestamp
    truth: Tensor
    observations: Tensor
    forcing: np.ndarray


def case(setting: Setting, network: Network, position: int, seed: int) -> Case:
    """The case at a step, with observation errors that depend on seed, network and time alone."""
    here = np.array([position])
    time = setting.archive.times[position]
    physical = setting.reader.physical(here)[0]
    noise = derive_seed(seed, "observations", network.fraction, network.seed, time)
    return Case(
        position,
        time,
        setting.reader.state(here)[0],
        network.observe(physical, noise),
        setting.reader.forcing(here)[0],
    )


class Method(ABC):
    """Draws analysis ensembles.

    Args:
        setting: what it may use.
    """

    def __init__(self, setting: Setting) -> None:
        self.setting = setting

    def prepare(self, network: Network) -> None:
        """Do once what a network needs."""
        self.network = network

    @abstractmethod
    def draw(self, case: Case, generator: MemberGenerator) -> Tensor:
        """(M, C, H, W) normalised."""

    def provenance(self) -> dict[str, Any]:
        """What the row says of this method."""
        return {}


@METHODS.register("climatology")
class ClimatologyMethod(Method):
    """Random training states of the same time of year (30 days around), observations unseen."""

    def draw(self, case: Case, generator: MemberGenerator) -> Tensor:
        """See Method."""
        return self.season(case.time, generator)

    def season(self, time: pd.Timestamp, generator: MemberGenerator) -> Tensor:
        """(M, C, H, W) states of the season of a time."""
        days = self.setting.archive.times[self.setting.training].dayofyear.to_numpy()
        apart = np.abs((days - time.dayofyear + 182) % 365 - 182)
        season = self.setting.training[apart <= 15]
        pick = (generator.rand((len(generator), 1))[:, 0] * len(season)).long()
        return self.setting.reader.state(season[pick.numpy()])


@METHODS.register("optimal_interpolation")
class OptimalInterpolationMethod(Method):
    """Optimal interpolation with the localised covariance of the training years.

    Members start from training states that the covariance was not taken from: those it was taken
    from it fits too well, and their spread is too small.

    Args:
        setting: what it may use.
        samples: states of the training years that the covariance is taken from.
        tuned: result of ``gapzoo leaderboard tune``: options by density.
        options: of ``OptimalInterpolation``, for every density, before what was tuned.
    """

    def __init__(
        self, setting: Setting, samples: int = 1000, tuned: str | None = None, **options: Any
    ) -> None:
        super().__init__(setting)
        best = tuned_options(tuned) if tuned else {}
        self.options, self.samples, self.tuned = options, samples, best
        self._sample = setting.sample(samples)
        gap = len(setting.training) / samples / 2
        held = np.linspace(gap, len(setting.training) - 1 - gap, samples).astype(int)
        self._held = setting.training[held]

    def prepare(self, network: Network) -> None:
        """Factorise the network's innovation covariance."""
        super().prepare(network)
        world = self.setting.world
        tuned = self.tuned.get(f"{network.fraction:g}", {})
        options = {**{k: v for k, v in tuned.items() if k != "samples"}, **self.options}
        baseline = OptimalInterpolation(self._sample, world.grid, world.channels, **options)
        self._seen = network.stations.scaled(0.0, world.std)[0]
        self._gain = baseline.network(self._seen, network.errors).gain

    def draw(self, case: Case, generator: MemberGenerator) -> Tensor:
        """See Method."""
        mean = self.setting.world.mean(pd.DatetimeIndex([case.time]))[0]
        y = case.observations - self.network.stations(mean)
        pick = (generator.rand((len(generator), 1))[:, 0] * len(self._held)).long()
        background = self.setting.reader.state(self._held[pick.numpy()])
        noise = generator.randn((len(generator), len(y))) * self.network.errors
        return background + self._gain.increment(y + noise - self._seen(background))

    def provenance(self) -> dict[str, Any]:
        """Its settings."""
        return {"options": {"samples": self.samples, **self.options, "tuned": self.tuned}}


@METHODS.register("gap")
class GapMethod(Method):
    """The diffusion prior of a checkpoint under the observations.

    Args:
        setting: what it may use.
        prior: checkpoint.
        forcing: condition the prior on it.
        tuned: result of ``gapzoo leaderboard tune``: sampling by density.
        sampling: options of ``Sampling``, for every density, before what was tuned.
    """

    def __init__(
        self,
        setting: Setting,
        prior: str,
        forcing: bool = True,
        tuned: str | None = None,
        **sampling: Any,
    ) -> None:
        super().__init__(setting)
        self.checkpoint, self.forcing = checkpoint_for(setting, prior), forcing
        self.options, self.tuned = sampling, tuned_options(tuned) if tuned else {}
        for density in self.tuned or [""]:
            self._sampling(density)  # refuses unknown options before anything is drawn

    def _sampling(self, density: str) -> Sampling:
        own = self.tuned.get(density, {})
        chosen = {k: v for k, v in own.items() if k not in ("prior", "forcing")}
        return Sampling.of({**chosen, **self.options})

    def prepare(self, network: Network) -> None:
        """See Method."""
        super().prepare(network)
        self.task = Assimilation(
            prior=self.checkpoint.prior,
            world=self.checkpoint.world,
            sampling=self._sampling(f"{network.fraction:g}"),
            form="none",
        )

    def draw(self, case: Case, generator: MemberGenerator) -> Tensor:
        """See Method; the case is re-expressed in the checkpoint's own normalisation."""
        net, world = self.network, self.checkpoint.world
        observed = constraint(world, net.stations, case.observations, net.errors, case.time)
        forcing = case.forcing if self.forcing else None
        drawn = self.task.analyse(case.time, generator, observed, forcing)
        then = pd.DatetimeIndex([case.time])
        return self.setting.world.renormalise(drawn[None], then, world)[0]

    def provenance(self) -> dict[str, Any]:
        """Checkpoint and sampling."""
        return {
            "checkpoint": self.checkpoint.name,
            "weights_sha256": self.checkpoint.hash,
            "sampling": vars(self._sampling("")) | ({"tuned": self.tuned} if self.tuned else {}),
        }


def checkpoint_for(setting: Setting, name: str) -> Checkpoint:
    """A checkpoint of the setting's channels and grid; GapzooError for one of others."""
    found = checkpoint.load(name)
    setting.world.require(found.world, f"checkpoint '{found.name}'")
    found.to(device_of(setting.device))
    return found


def tuned_options(path: str) -> dict[str, Any]:
    """Options by network, from a file of ``gapzoo leaderboard tune``."""
    try:
        return dict(json.loads(Path(path).read_text())["best"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise GapzooError(f"{path} is no result of 'gapzoo leaderboard tune': {error}") from None


def setting_of(archive: Archive, variables: list[str], device: str = "cpu") -> Setting:
    """The setting of an archive, scoring some of its variables."""
    return Setting(archive, world_of(archive, variables or None), device=device)


def members_of(seed: int, count: int, *keys: object) -> MemberGenerator:
    """The members of a run, for one case."""
    return MemberGenerator(derive_seed(seed, *keys), count)
