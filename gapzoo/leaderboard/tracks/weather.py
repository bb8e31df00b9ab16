"""The weather track: ensemble forecasts by lead, from the truth or from analyses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from torch import Tensor

from gapzoo.core import GapzooError
from gapzoo.core.random import derive_seed
from gapzoo.leaderboard import TRACKS
from gapzoo.leaderboard.forecasts import FORECASTS, ForecastMethod
from gapzoo.leaderboard.methods import GapMethod, Network, Setting, case, members_of
from gapzoo.leaderboard.protocol import Protocol
from gapzoo.leaderboard.scores import Scores


@TRACKS.register("weather")
def run(
    protocol: Protocol,
    setting: Setting,
    entry: str,
    options: dict[str, Any],
    progress: Callable[[int], None] | None = None,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Scores by lead in hours, and the method's provenance; as every track."""
    method: ForecastMethod = FORECASTS.build(entry, setting=setting, protocol=protocol, **options)
    initial = _initial(protocol, setting)
    hours = [protocol.hours * (n + 1) for n in range(method.steps)]
    scores = {h: Scores(setting.world, protocol.estimator) for h in hours}  # type: ignore[arg-type]
    for position in protocol.positions(setting.archive, setting.world, hours[-1]):
        here = np.array([position])
        time, forcing = setting.archive.times[position], setting.reader.forcing(here)[0]
        generator = members_of(protocol.seed, protocol.members, "forecast", time)
        for later, state in method.run(initial(int(position)), time, forcing, generator):
            lead = int((later - time).total_seconds() // 3600)
            truth = setting.reader.state(here + lead // setting.world.hours)[0]
            scores[lead].add(state, truth)
        if progress:
            progress(1)
    return {str(h): s.summary() for h, s in scores.items()}, method.provenance()


def _initial(protocol: Protocol, setting: Setting) -> Callable[[int], Tensor]:
    """From a step to the initial ensemble (M, C, H, W), the same for all entries."""
    if protocol.initial == "truth":
        return lambda position: setting.reader.state(np.array([position])).expand(
            protocol.members, -1, -1, -1
        )
    if not protocol.analyses:
        raise GapzooError(f"protocol '{protocol.name}': 'analyses' must name a prior")
    density = protocol.densities[0]
    network = Network(setting.world, density, derive_seed(protocol.seed, "net", 0))
    method = GapMethod(setting, protocol.analyses)
    method.prepare(network)

    def analyse(position: int) -> Tensor:
        here = case(setting, network, position, protocol.seed)
        generator = members_of(protocol.seed, protocol.members, density, here.time)
        return method.draw(here, generator)

    return analyse
