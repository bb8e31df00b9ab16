"""The one-time analysis: observations of one time, at several densities."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gapzoo.core.random import derive_seed
from gapzoo.leaderboard import TRACKS
from gapzoo.leaderboard.methods import METHODS, Method, Network, Setting, case, members_of
from gapzoo.leaderboard.protocol import Protocol
from gapzoo.leaderboard.scores import Scores


@TRACKS.register("analysis")
def run(
    protocol: Protocol,
    setting: Setting,
    entry: str,
    options: dict[str, Any],
    progress: Callable[[int], None] | None = None,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Scores by density, and the method's provenance.

    Args:
        protocol: of track ``analysis``.
        setting: archive and world.
        entry: registered name of an analysis method.
        options: its arguments.
        progress: called with 1 after each ensemble, densities x cases in all.
    """
    method: Method = METHODS.build(entry, setting=setting, **options)
    positions = protocol.positions(setting.archive, setting.world)
    found = {}
    for density in protocol.densities:
        scores = Scores(setting.world, protocol.estimator)  # type: ignore[arg-type]
        for number in range(protocol.networks):
            network = Network(setting.world, density, derive_seed(protocol.seed, "net", number))
            method.prepare(network)
            for position in positions[number :: protocol.networks]:
                here = case(setting, network, int(position), protocol.seed)
                generator = members_of(protocol.seed, protocol.members, density, here.time)
                scores.add(method.draw(here, generator), here.truth)
                if progress:
                    progress(1)
        found[f"{density:g}"] = scores.summary()
    return found, method.provenance()
