"""The one-time analysis: observations of one time, at several densities."""

from __future__ import annotations

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
    positions = protocol.positions(setting.archive, setting.world)
    found = {}
    for density in protocol.densities:
        cases: dict[int, Arrays] = {}
        for number in range(protocol.networks):
            network = Network(setting.world, density, derive_seed(protocol.seed, "net", number))
            mine = positions[number :: protocol.networks]
            cases |= _of_network(protocol, method, network, mine.tolist(), journal)
        scores = Scores(setting.world, protocol.estimator)  # type: ignore[arg-type]
        for position in positions.tolist():
            scores.take(cases[position])
        found[f"{density:g}"] = scores.summary(maps=True)
    times = setting.archive.times[positions]
    return found, {**method.provenance(), "initial_times": [f"{t:%Y-%m-%dT%H}" for t in times]}


def _of_network(
    protocol: Protocol, method: Method, network: Network, positions: list[int], journal: Journal
) -> dict[int, Arrays]:
    """Statistics by position; the method is prepared where one of them is not there yet."""
    setting, found = method.setting, {}
    keys = {p: _key(network.fraction, setting.archive.times[p]) for p in positions}
    if not all(journal.done(key) for key in keys.values()):
        method.prepare(network)

    def make(position: int) -> Arrays:
        here = case(setting, network, position, protocol.seed)
        generator = members_of(protocol.seed, protocol.members, network.fraction, here.time)
        drawn, estimator = method.draw(here, generator), protocol.estimator
        return statistics(setting.world, drawn, here.truth, estimator, here.time)  # type: ignore[arg-type]

    for position, key in keys.items():
        found[position] = journal.case(key, lambda p=position: make(p))  # type: ignore[misc]
    return found


def _key(density: float, time: pd.Timestamp) -> str:
    return f"{density:g}-{time:%Y%m%dT%H}"
