"""The one-time analysis: observations of one time, at several densities."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import pandas as pd

from gapzoo.core.random import derive_seed
from gapzoo.leaderboard import TRACKS
from gapzoo.leaderboard.journal import Journal
from gapzoo.leaderboard.methods import METHODS, Method, Network, Setting, case, members_of
from gapzoo.leaderboard.protocol import Protocol
from gapzoo.leaderboard.scores import Scores
from gapzoo.leaderboard.statistics import Arrays, statistics


@TRACKS.register("analysis")
def run(
    protocol: Protocol, setting: Setting, entry: str, options: dict[str, Any], journal: Journal
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Scores by density, and the method's provenance with the initial times.

    Args:
        protocol: of track ``analysis``.
        setting: archive and world.
        entry: registered name of an analysis method.
        options: its arguments.
        journal: keeps the cases, densities x cases in all.
    """
    method: Method = METHODS.build(entry, setting=setting, **options)
    journal.begin(method.provenance())
    positions, drawing = protocol.positions(setting.archive, setting.world), _Drawing(method)
    makes: dict[float, dict[int, tuple[str, Callable[[], Arrays]]]] = {}
    for density in protocol.densities:
        for number in range(protocol.networks):
            network = Network(setting.world, density, derive_seed(protocol.seed, "net", number))
            for position in positions[number :: protocol.networks].tolist():
                key = _key(density, setting.archive.times[position])
                make = partial(drawing.case, protocol, network, position)
                makes.setdefault(density, {})[position] = (key, make)
    journal.share({key: make for one in makes.values() for key, make in one.values()})
    found = {}
    for density, one in makes.items():
        scores = Scores(setting.world, protocol.estimator)  # type: ignore[arg-type]
        cases = {position: journal.case(*made) for position, made in one.items()}
        for position in positions.tolist():
            scores.take(cases[position])
        found[f"{density:g}"] = scores.summary(maps=True)
    times = setting.archive.times[positions]
    return found, {**method.provenance(), "initial_times": [f"{t:%Y-%m-%dT%H}" for t in times]}


@dataclass
class _Drawing:
    """A method that is prepared for a network when it first draws there."""

    method: Method
    network: Network | None = None

    def case(self, protocol: Protocol, network: Network, position: int) -> Arrays:
        """Statistics of an analysis."""
        setting = self.method.setting
        if network is not self.network:
            self.method.prepare(network)
            self.network = network
        here = case(setting, network, position, protocol.seed)
        generator = members_of(protocol.seed, protocol.members, network.fraction, here.time)
        drawn, estimator = self.method.draw(here, generator), protocol.estimator
        return statistics(setting.world, drawn, here.truth, estimator, here.time)  # type: ignore[arg-type]


def _key(density: float, time: pd.Timestamp) -> str:
    return f"{density:g}-{time:%Y%m%dT%H}"
