"""Cycled assimilation: the same network observes every few hours, members are carried between.

Scores are those of the second half of each cycle, by density; ``crps_by_cycle`` holds all of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from gapzoo.core import GapzooError
from gapzoo.core.random import derive_seed
from gapzoo.leaderboard import TRACKS
from gapzoo.leaderboard.journal import Journal
from gapzoo.leaderboard.methods import (
    METHODS,
    Case,
    Network,
    Setting,
    case,
    checkpoint_for,
    members_of,
)
from gapzoo.leaderboard.protocol import Protocol
from gapzoo.leaderboard.scores import Scores
from gapzoo.leaderboard.statistics import Arrays, statistics
from gapzoo.tasks.assimilation import Assimilation, Step, constraint
from gapzoo.tasks.sampling import Sampling

Drawn = Iterator[tuple[Case, Tensor]]


@TRACKS.register("cycle")
def run(
    protocol: Protocol, setting: Setting, entry: str, options: dict[str, Any], journal: Journal
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Scores by density, and the method's provenance with the times of the scored analyses.

    Args:
        protocol: of track ``cycle``: ``cases`` starts, ``lead_days`` long, every ``hours``.
        setting: archive and world.
        entry: ``gap`` with a ``forecaster`` cycles; any other analysis method stands alone.
        options: its arguments.
        journal: keeps each start at each density.
    """
    method: _Method = _Cycled(setting, protocol, options)
    if entry != "gap" or "forecaster" not in options:
        method = _Alone(setting, protocol, entry, options)
    journal.begin(method.provenance())
    starts = protocol.positions(setting.archive, setting.world, protocol.lead_days * 24)
    steps = protocol.lead_days * 24 // protocol.hours
    every = np.arange(steps) * (protocol.hours // setting.world.hours)
    found = {}
    for density in protocol.densities:
        scores, series = Scores(setting.world, protocol.estimator), []  # type: ignore[arg-type]
        for start in starts.tolist():
            key = f"{density:g}-{setting.archive.times[start]:%Y%m%dT%H}"
            made = journal.case(key, lambda s=start, d=density: method.cycle(d, s + every))  # type: ignore[misc]
            one = Scores(setting.world)
            for number in range(steps):
                part = {
                    k.partition("/")[2]: v for k, v in made.items() if k.startswith(f"{number}/")
                }
                one.take(part)
                if number >= steps // 2:
                    scores.take(part)
            series.append([round(float(x), 5) for x in one.crps_by_case()])
        found[f"{density:g}"] = {**scores.summary(maps=True), "crps_by_cycle": series}
    scored = [setting.archive.times[s + every[steps // 2 :]] for s in starts]
    times = [f"{t:%Y-%m-%dT%H}" for part in scored for t in part]
    return found, {**method.provenance(), "initial_times": times}


class _Method:
    """Draws an analysis at every position."""

    setting: Setting
    protocol: Protocol

    def run(self, network: Network, positions: np.ndarray) -> Drawn:
        """Yield the case and its members, in order."""
        raise NotImplementedError

    def provenance(self) -> dict[str, Any]:
        """What the row says."""
        raise NotImplementedError

    def cycle(self, density: float, positions: np.ndarray) -> Arrays:
        """Statistics of every analysis, their names after ``NUMBER/``."""
        world, seed = self.setting.world, self.protocol.seed
        network = Network(world, density, derive_seed(seed, "net", int(positions[0])))
        found = Arrays()
        for number, (here, members) in enumerate(self.run(network, positions)):
            estimator: Any = self.protocol.estimator
            part = statistics(world, members, here.truth, estimator, here.time)
            found |= {f"{number}/{name}": value for name, value in part.items()}
        return found

    def cases(self, network: Network, positions: np.ndarray) -> list[Case]:
        """Truth and observations at every position."""
        return [case(self.setting, network, int(p), self.protocol.seed) for p in positions]


class _Alone(_Method):
    """A one-time method at every cycle, which knows nothing of the one before."""

    def __init__(
        self, setting: Setting, protocol: Protocol, entry: str, options: dict[str, Any]
    ) -> None:
        self.setting, self.protocol = setting, protocol
        self.method = METHODS.build(entry, setting=setting, **options)

    def run(self, network: Network, positions: np.ndarray) -> Drawn:
        self.method.prepare(network)
        seed, count = self.protocol.seed, self.protocol.members
        for here in self.cases(network, positions):
            yield here, self.method.draw(here, members_of(seed, count, "cycle", here.time))

    def provenance(self) -> dict[str, Any]:
        return self.method.provenance()


class _Cycled(_Method):
    """The prior under observations and forecasts of its own last analysis.

    Options: ``prior``, ``forecaster`` (checkpoints), ``form``, ``start_sigma``, ``inflation`` and
    those of Sampling.
    """

    def __init__(self, setting: Setting, protocol: Protocol, options: dict[str, Any]) -> None:
        self.setting, self.protocol, self.options = setting, protocol, dict(options)
        if "forecaster" not in options:
            return
        if "prior" not in options:
            raise GapzooError("entry 'gap' needs 'prior'=CHECKPOINT")
        names = {k: options[k] for k in ("prior", "forecaster")}
        self.prior, self.forecaster = (checkpoint_for(setting, n) for n in names.values())
        constrained = {k: options[k] for k in ("form", "start_sigma") if k in options}
        other = {*names, "form", "start_sigma", "inflation"}
        self.sampling = Sampling.of({k: v for k, v in options.items() if k not in other})
        error = self.forecaster.error(protocol.hours, self.prior.covariance)
        self.task = Assimilation(
            prior=self.prior.prior,
            world=self.prior.world,
            sampling=self.sampling,
            forecaster=self.forecaster.forecaster,
            error=error.with_eigenvalues(options.get("inflation", 1.0) * error.eigenvalues),
            **constrained,
        )

    def run(self, network: Network, positions: np.ndarray) -> Drawn:
        cases = self.cases(network, positions)
        seed, count = self.protocol.seed, self.protocol.members
        generator = members_of(seed, count, "cycle", network.fraction, cases[0].time)
        steps = [self._step(network, here) for here in cases]
        for here, cycle in zip(cases, self.task.cycle(steps, generator), strict=True):
            yield here, cycle.analysis

    def _step(self, network: Network, here: Case) -> Step:
        time: pd.Timestamp = here.time
        seen = constraint(
            self.prior.world, network.stations, here.observations, network.errors, time
        )
        return Step(time, seen, here.forcing)

    def provenance(self) -> dict[str, Any]:
        return {
            "checkpoint": self.prior.name,
            "weights_sha256": self.prior.hash,
            "forecaster": self.forecaster.name,
            "forecaster_sha256": self.forecaster.hash,
            "options": self.options,
            "sampling": vars(self.sampling),
        }
