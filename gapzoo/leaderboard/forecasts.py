"""Methods that make a forecast ensemble, for the weather track; states are normalised."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from gapzoo.core import GapzooError, MemberGenerator, Registry
from gapzoo.forecasters import FORECASTERS, Forecaster, needs_checkpoint
from gapzoo.leaderboard.methods import ClimatologyMethod, Setting, checkpoint_for
from gapzoo.leaderboard.protocol import Protocol
from gapzoo.tasks.forced import persisted
from gapzoo.tasks.rollout import Rollout
from gapzoo.tasks.settings import RolloutSettings, rollout_of

FORECASTS = Registry("entry", "gapzoo.leaderboard")
"""Forecast methods by entry name."""
ROLLED = (
    "form",
    "start_sigma",
    "inflation",
    "memory",
    "recurrence",
    "merge",
    "guard",
    "dry_mass",
    "dry_mass_error",
)
"""Options of a roll-out that an entry may set; the others are the protocol's."""


class ForecastMethod(ABC):
    """Forecasts from an initial ensemble.

    Args:
        setting: archive and world.
        protocol: leads and members.
    """

    def __init__(self, setting: Setting, protocol: Protocol) -> None:
        self.setting, self.protocol = setting, protocol

    @property
    def steps(self) -> int:
        """Number of steps of a forecast."""
        return self.protocol.lead_days * 24 // self.protocol.hours

    def check(self, times: pd.DatetimeIndex) -> None:  # noqa: B027
        """Refuse initial times that it cannot forecast from, before any work is done."""

    @abstractmethod
    def run(
        self, initial: Tensor, time: pd.Timestamp, forcing: np.ndarray, generator: MemberGenerator
    ) -> Iterator[tuple[pd.Timestamp, Tensor]]:
        """Yield (valid time, (M, C, H, W)) for each step.

        Args:
            initial: (M, C, H, W).
            time: initial time.
            forcing: (F, H, W) anomalies at the initial time, SI units; they persist.
            generator: of the members.
        """

    def provenance(self) -> dict[str, Any]:
        """What the row says of this method."""
        return {}

    def _deterministic(
        self, forecaster: Forecaster, initial: Tensor, time: pd.Timestamp, forcing: np.ndarray
    ) -> Iterator[tuple[pd.Timestamp, Tensor]]:
        roll = Rollout(forecaster=forecaster, world=self.setting.world, hours=self.protocol.hours)
        one = initial.mean(0, keepdim=True)
        states = roll.run(one, time, MemberGenerator(0, 1), persisted(forcing))
        return islice(states, self.steps)


@FORECASTS.register("persistence")
class PersistenceForecast(ForecastMethod):
    """The mean of the initial ensemble, kept."""

    def run(
        self, initial: Tensor, time: pd.Timestamp, forcing: np.ndarray, generator: MemberGenerator
    ) -> Iterator[tuple[pd.Timestamp, Tensor]]:
        """See ForecastMethod."""
        forecaster = FORECASTERS.build("persistence", world=self.setting.world)
        return self._deterministic(forecaster, initial, time, forcing)


@FORECASTS.register("climatology")
class ClimatologyForecast(ForecastMethod):
    """Training states of the season, one set for all leads."""

    def run(
        self, initial: Tensor, time: pd.Timestamp, forcing: np.ndarray, generator: MemberGenerator
    ) -> Iterator[tuple[pd.Timestamp, Tensor]]:
        """See ForecastMethod."""
        season = ClimatologyMethod(self.setting)
        for step in range(1, self.steps + 1):
            later = time + pd.Timedelta(hours=step * self.protocol.hours)
            yield later, season.season(later, generator.fork("climatology", later))


@FORECASTS.register("convcast")
class DeterministicForecast(ForecastMethod):
    """The forecasting network alone, from the mean of the initial ensemble.

    Args:
        setting: archive and world.
        protocol: leads and members.
        forecaster: checkpoint of a forecasting network.
        basis: checkpoint of the prior in whose modes its corrections are known; without it nothing
            is corrected.
    """

    entry = "convcast"

    def __init__(
        self, setting: Setting, protocol: Protocol, forecaster: str, basis: str = ""
    ) -> None:
        super().__init__(setting, protocol)
        self.checkpoint = checkpoint_for(setting, forecaster)
        self.basis = checkpoint_for(setting, basis) if basis else None
        own = getattr(self.checkpoint.network, "forecaster", self.entry)
        if own != self.entry:
            raise GapzooError(f"forecaster '{forecaster}' is for the entry '{own}'; run that")

    def run(
        self, initial: Tensor, time: pd.Timestamp, forcing: np.ndarray, generator: MemberGenerator
    ) -> Iterator[tuple[pd.Timestamp, Tensor]]:
        """See ForecastMethod."""
        forecaster = self.checkpoint.forecaster_in(self.setting.world, self.basis)
        return self._deterministic(forecaster, initial, time, forcing)

    def provenance(self) -> dict[str, Any]:
        """The network, and whose modes its corrections are in."""
        known = {"forecaster": self.checkpoint.name, "forecaster_sha256": self.checkpoint.hash}
        return known | ({"basis": self.basis.name} if self.basis else {})


@FORECASTS.register("crpscast")
class GeneratedForecast(DeterministicForecast):
    """The generating network alone, from each member of the initial ensemble with its own noise."""

    entry = "crpscast"

    def run(
        self, initial: Tensor, time: pd.Timestamp, forcing: np.ndarray, generator: MemberGenerator
    ) -> Iterator[tuple[pd.Timestamp, Tensor]]:
        """See ForecastMethod."""
        world = self.setting.world
        forecaster = self.checkpoint.forecaster_in(world, self.basis)
        roll = Rollout(forecaster=forecaster, world=world, hours=self.protocol.hours)
        return islice(roll.run(initial, time, generator, persisted(forcing)), self.steps)


@FORECASTS.register("diffcast")
class DiffusedForecast(GeneratedForecast):
    """The conditional denoiser alone, likewise."""

    entry = "diffcast"


@FORECASTS.register("speedy")
class SpeedyForecast(ForecastMethod):
    """The true model from each member of the initial ensemble: the limit of predictability."""

    def run(
        self, initial: Tensor, time: pd.Timestamp, forcing: np.ndarray, generator: MemberGenerator
    ) -> Iterator[tuple[pd.Timestamp, Tensor]]:
        """See ForecastMethod."""
        world, hours = self.setting.world, self.protocol.hours
        roll = Rollout(
            forecaster=FORECASTERS.build("speedy", world=world), world=world, hours=hours
        )
        return islice(roll.run(initial, time, generator, persisted(forcing)), self.steps)


@FORECASTS.register("gap")
class GapForecast(ForecastMethod):
    """Each member stepped by the network and returned to the prior.

    Args:
        setting: archive and world.
        protocol: leads and members.
        prior: checkpoint of a prior.
        forecaster: checkpoint of a forecasting network; or ``speedy``, with ``form=renoise``.
        options: of ``gapzoo.tasks.settings.RolloutSettings`` (``form``, ``inflation``, ``guard``,
            ``dry_mass``, ...), and of ``gapzoo.tasks.Sampling`` (``steps``, ...).
    """

    def __init__(
        self, setting: Setting, protocol: Protocol, prior: str, forecaster: str, **options: Any
    ) -> None:
        super().__init__(setting, protocol)
        self.prior = checkpoint_for(setting, prior)
        trained = needs_checkpoint(forecaster)
        self.network = checkpoint_for(setting, forecaster) if trained else None
        self.forecaster = forecaster
        self.options = {k: options.pop(k) for k in ROLLED if k in options}
        settings = RolloutSettings(
            prior=prior,
            forecaster=forecaster,
            hours=protocol.hours,
            sampling=options,
            device=setting.device,
            **self.options,
        )
        self.rollout = rollout_of(settings, self.prior, self.network, self.prior.world)

    def run(
        self, initial: Tensor, time: pd.Timestamp, forcing: np.ndarray, generator: MemberGenerator
    ) -> Iterator[tuple[pd.Timestamp, Tensor]]:
        """See ForecastMethod."""
        mine, own = self.setting.world, self.prior.world
        initial = own.renormalise(initial[None], pd.DatetimeIndex([time]), mine)[0]
        states = self.rollout.run(initial, time, generator, persisted(forcing))
        for then, state in islice(states, self.steps):
            yield then, mine.renormalise(state[None], pd.DatetimeIndex([then]), own)[0]

    def provenance(self) -> dict[str, Any]:
        """Checkpoints and settings."""
        found = {"checkpoint": self.prior.name, "weights_sha256": self.prior.hash}
        found |= {"forecaster": self.forecaster}
        if self.network is not None:
            found |= {"forecaster": self.network.name, "forecaster_sha256": self.network.hash}
        return {**found, "options": self.options, "sampling": self._sampling()}

    def _sampling(self) -> dict[str, Any]:
        """As it is written down: measured weights by their digest."""
        assert self.rollout.sampling is not None
        found = dict(vars(self.rollout.sampling))
        named = {k: getattr(v, "digest", v) for k, v in found["sampler_options"].items()}
        return found | {"sampler_options": named}
