"""Methods that cycle: analysis, forecast, analysis; states are normalised.

All start from the same climatological ensemble (the prior from its own), see the same observations
and may use the same models: a forecasting network's checkpoint, or ``speedy``, which is the true
model unless the protocol changes its physics.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from gapzoo.baselines.enkf import EnKF
from gapzoo.baselines.letkf import LETKF, unmoved
from gapzoo.baselines.localisation import Sphere
from gapzoo.baselines.var3d import Var3D
from gapzoo.checkpoint import Checkpoint
from gapzoo.core import GapzooError, MemberGenerator, Registry, nearest
from gapzoo.forecasters import FORECASTERS, Forecaster, needs_checkpoint
from gapzoo.leaderboard.methods import (
    Case,
    ClimatologyMethod,
    Setting,
    checkpoint_for,
    tuned_options,
)
from gapzoo.leaderboard.protocol import Protocol
from gapzoo.leaderboard.statistics import Arrays
from gapzoo.tasks.forecast_error import added_errors

CYCLES = Registry("entry", "gapzoo.leaderboard")
"""Cycled methods by entry name."""


class Diverged(GapzooError):
    """A cycle has left what its model can carry."""


class CycleMethod(ABC):
    """Analyses in turn.

    Args:
        setting: archive and world.
        protocol: hours between analyses, members, changed physics.
        forecaster: a checkpoint, or the name of a forecaster that needs none.
        ensemble: members, where not the protocol's.
        prior: in whose modes a network's linear errors are known.
    """

    def __init__(
        self,
        setting: Setting,
        protocol: Protocol,
        forecaster: str,
        ensemble: int | None = None,
        prior: Checkpoint | None = None,
    ) -> None:
        self.setting, self.protocol = setting, protocol
        self.members = ensemble or protocol.members
        self.model: Forecaster
        self.network_of_model: Checkpoint | None = None
        self._named = forecaster
        self._errors: dict[int, Tensor] = {}
        if not needs_checkpoint(forecaster):
            changed = {"parameters": dict(protocol.cycling.parameters)}
            extra = changed if forecaster == "speedy" else {}
            self.model = FORECASTERS.build(forecaster, world=setting.world, **extra)
            return
        if protocol.cycling.parameters:
            raise GapzooError(
                f"protocol '{protocol.name}' is for models with errors; '{forecaster}' was "
                "trained on the true one, take forecaster=speedy"
            )
        self.network_of_model = checkpoint_for(setting, forecaster)
        self.model = self.network_of_model.forecaster_in(setting.world, prior)

    def prepare(self, network: Any) -> None:
        """Do once what a network needs, and forget the cycle before."""
        self.network = network
        self.seen = network.stations.scaled(0.0, self.setting.world.std)[0]

    def first(self, here: Case, generator: MemberGenerator) -> Tensor | None:
        """(M, C, H, W): the background of the first analysis, states of the season."""
        return ClimatologyMethod(self.setting).season(here.time, generator)

    def carry(
        self, analysis: Tensor, before: Case, here: Case, generator: MemberGenerator
    ) -> Tensor:
        """(M, C, H, W) forecasts from the analysis before."""
        if not torch.isfinite(analysis).all() or analysis.abs().max() > LARGEST:
            raise Diverged(f"an analysis of {before.time} has left the climate by far")
        hours = int((here.time - before.time) / pd.Timedelta(hours=1))
        found = self.model.step(analysis, before.time, hours, before.forcing, generator)
        if not torch.isfinite(found).all():
            raise Diverged(f"a forecast to {here.time} is not finite")
        return found

    def errors(self, hours: int = 0) -> Tensor:
        """(N, C, H, W) that the model adds in a cycle (``added_errors``), in validation years.

        Args:
            hours: lead; a cycle's length where 0.
        """
        setting = self.setting
        if hours not in self._errors:
            given = (self.model, setting.reader, setting.validate, self.protocol.hours, hours)
            self._errors[hours] = added_errors(*given)
        return self._errors[hours]

    @abstractmethod
    def analyse(self, here: Case, background: Tensor | None, generator: MemberGenerator) -> Tensor:
        """(M, C, H, W) from the observations of a case."""

    def departure(self, here: Case) -> Tensor:
        """(N,) observations less the climatology of the day, SI units: those of ``seen``."""
        mean = self.setting.world.mean(pd.DatetimeIndex([here.time]))[0]
        return here.observations - self.network.stations(mean)

    def memory(self) -> Arrays:
        """What must be kept besides the analysis to go on."""
        return {}

    def remember(self, memory: Arrays) -> None:  # noqa: B027
        """Take what ``memory`` gave."""

    def provenance(self) -> dict[str, Any]:
        """What the row says of this method."""
        net = self.network_of_model
        found: dict[str, Any] = {"forecaster": self._named, "members": self.members}
        return found if net is None else {**found, "forecaster_sha256": net.hash}


LARGEST = 50.0
"""Spreads from the climatology beyond which an analysis is no state of the atmosphere."""


def changing(setting: Setting) -> np.ndarray:
    """Steps of the training years that have a state a day later in their run."""
    ahead, runs = 24 // setting.world.hours, setting.archive.runs
    rows = setting.training[:-ahead]
    return np.asarray(rows[runs[rows] == runs[rows + ahead]])


def changes(setting: Setting, rows: np.ndarray) -> Tensor:
    """(N, C, H, W) differences over a day from the steps of ``changing``."""
    ahead = 24 // setting.world.hours
    return setting.reader.state(rows + ahead) - setting.reader.state(rows)


@CYCLES.register("free")
class FreeRun(CycleMethod):
    """The ensemble runs free; observations are not looked at."""

    def __init__(self, setting: Setting, protocol: Protocol, forecaster: str = "speedy") -> None:
        super().__init__(setting, protocol, forecaster)

    def analyse(self, here: Case, background: Tensor | None, generator: MemberGenerator) -> Tensor:
        """The background."""
        assert background is not None
        return background


class _Tuned(CycleMethod):
    """A baseline with options by network, from ``gapzoo leaderboard tune``."""

    defaults: ClassVar[dict[str, Any]] = {}

    def __init__(
        self,
        setting: Setting,
        protocol: Protocol,
        forecaster: str = "speedy",
        ensemble: int | None = None,
        tuned: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(setting, protocol, forecaster, ensemble)
        self.tuned = tuned_options(tuned) if tuned else {}
        for chosen in [options, *self.tuned.values()]:
            for name in chosen:
                if name not in (*self.defaults, "forecaster", "ensemble"):
                    raise GapzooError(f"no option '{name}'; {nearest(name, self.defaults)}")
        self.options = options

    def chosen(self) -> dict[str, Any]:
        """Options of the network: the defaults, those tuned for it, those given."""
        own = self.tuned.get(self.network.label, {})
        known = {k: v for k, v in own.items() if k in self.defaults}
        return {**self.defaults, **known, **self.options}

    def locality(self, chosen: dict[str, Any]) -> Sphere:
        """Localisation by the options ``length`` and ``vertical``."""
        world = self.setting.world
        length, vertical = (float(chosen[k]) for k in ("length", "vertical"))
        return Sphere(world.grid, world.channels, length=length, vertical=vertical)

    def provenance(self) -> dict[str, Any]:
        """Its settings."""
        options = {**self.defaults, **self.options}
        return {**super().provenance(), "options": {**options, "tuned": self.tuned}}


@CYCLES.register("letkf")
class LETKFCycle(_Tuned):
    """LETKF; options ``length`` (m), ``vertical`` (log sigma), ``inflation``, ``rtps``, ...

    ``kept`` names channels or variables that analyses leave as the forecasts have them.
    ``additive`` times draws from ``sample``, less their mean, are added to the forecasts
    beforehand: for errors of the model (Whitaker & Hamill 2012, sect. 3b). A sample is ``changes``
    (over a day in the training years) or ``errors`` (the model's own from truths of the validation
    years, a cycle's share of those after ``over`` hours, see ``CycleMethod.errors``).
    """

    defaults: ClassVar[dict[str, Any]] = {
        "length": 1e6,
        "vertical": 0.5,
        "inflation": 1.0,
        "rtps": 0.5,
        "rotation": False,
        "adaptive": 0.0,
        "additive": 0.0,
        "sample": "changes",
        "over": 0,
        "kept": [],
    }

    def prepare(self, network: Any) -> None:
        """See CycleMethod."""
        super().prepare(network)
        chosen = self.chosen()
        self.kept = self.setting.world.channels.positions(chosen["kept"])
        self.over = int(chosen["over"])
        self.additive, self.sample = float(chosen["additive"]), chosen["sample"]
        if self.sample not in ("changes", "errors"):
            raise GapzooError(f"sample '{self.sample}'; it is 'changes' or 'errors'")
        if self.over and self.sample != "errors":
            raise GapzooError(f"over={self.over} is of sample=errors; give that too, or no over")
        names = ("inflation", "rtps", "rotation", "adaptive")
        self.filter = LETKF(self.locality(chosen), **{k: chosen[k] for k in names})

    def analyse(self, here: Case, background: Tensor | None, generator: MemberGenerator) -> Tensor:
        """See CycleMethod."""
        y, errors = self.departure(here), self.network.errors
        assert background is not None
        wider = background + self._added(generator) if self.additive else background
        found = self.filter.analyse(wider, self.seen, y, errors, generator)
        return unmoved(background, found, self.kept)

    def _added(self, generator: MemberGenerator) -> Tensor:
        """(M, C, H, W) scaled draws, which sum to zero over the members."""
        drawn = generator.fork("additive").rand((len(generator),)).numpy()
        if self.sample == "errors":
            errors = self.errors(self.over)
            found = errors[(drawn * len(errors)).astype(int)]
        else:
            rows = changing(self.setting)
            found = changes(self.setting, rows[(drawn * len(rows)).astype(int)])
        return self.additive * (found - found.mean(0))

    def memory(self) -> Arrays:
        """The adaptive inflation's field."""
        field = self.filter.field
        return {} if field is None else {"inflation": field.numpy()}

    def remember(self, memory: Arrays) -> None:
        """See CycleMethod."""
        self.filter.field = None
        if "inflation" in memory:
            self.filter.field = torch.from_numpy(memory["inflation"].copy())


@CYCLES.register("enkf")
class EnKFCycle(_Tuned):
    """EnKF with perturbed observations; options ``length``, ``vertical``, ``inflation``."""

    defaults: ClassVar[dict[str, Any]] = {"length": 1e6, "vertical": 0.5, "inflation": 1.1}

    def analyse(self, here: Case, background: Tensor | None, generator: MemberGenerator) -> Tensor:
        """See CycleMethod."""
        chosen = self.chosen()
        enkf = EnKF(self.locality(chosen), inflation=float(chosen["inflation"]))
        assert background is not None
        y, errors = self.departure(here), self.network.errors
        return enkf.analyse(background, self.seen, y, errors, generator)


@CYCLES.register("var3d")
class Var3DCycle(_Tuned):
    """An ensemble of 3D-Vars: each member has its own forecast and perturbed observations.

    Options: ``scale`` of the static covariance, ``length``, ``vertical``, ``samples`` of it, and
    ``sample``: ``climate`` (anomalies of the training years; cycled optimal interpolation) or
    ``changes`` (differences over a day, which are more like a forecast's errors).
    """

    defaults: ClassVar[dict[str, Any]] = {
        "scale": 0.1,
        "length": 2e6,
        "vertical": 1.0,
        "samples": 500,
        "sample": "changes",
    }

    def prepare(self, network: Any) -> None:
        """See CycleMethod; the gain is factorised once."""
        super().prepare(network)
        chosen = self.chosen()
        where, scale = self.locality(chosen), float(chosen["scale"])
        self.var3d = Var3D(self._sample(chosen), scale=scale, locality=where)

    def _sample(self, chosen: dict[str, Any]) -> Tensor:
        """(S, C, H, W) states or changes of the training years."""
        count, setting = int(chosen["samples"]), self.setting
        if chosen["sample"] == "climate":
            return setting.sample(count)
        if chosen["sample"] != "changes":
            raise GapzooError(f"sample '{chosen['sample']}'; it is 'climate' or 'changes'")
        rows = changing(setting)
        return changes(setting, rows[np.linspace(0, len(rows) - 1, count).astype(int)])

    def analyse(self, here: Case, background: Tensor | None, generator: MemberGenerator) -> Tensor:
        """See CycleMethod."""
        assert background is not None
        errors, y = self.network.errors, self.departure(here)
        noise = generator.randn((len(background), len(y))) * errors
        return self.var3d.analyse(background, self.seen, y + noise, errors)
