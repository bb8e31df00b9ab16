"""The weather track: ensemble forecasts by lead, from the truth or from analyses."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from torch import Tensor

from gapzoo.core import GapzooError
from gapzoo.core.random import derive_seed
from gapzoo.leaderboard import TRACKS
from gapzoo.leaderboard.forecasts import FORECASTS, ForecastMethod
from gapzoo.leaderboard.journal import Journal
from gapzoo.leaderboard.methods import GapMethod, Network, Setting, case, members_of
from gapzoo.leaderboard.protocol import Protocol
from gapzoo.leaderboard.scores import Scores
from gapzoo.leaderboard.statistics import Arrays, statistics


@TRACKS.register("weather")
def run(
    protocol: Protocol, setting: Setting, entry: str, options: dict[str, Any], journal: Journal
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Scores by lead in hours, and the method's provenance; as every track."""
    method: ForecastMethod = FORECASTS.build(entry, setting=setting, protocol=protocol, **options)
    initial, origin = _initial(protocol, setting)
    told = {**method.provenance(), **origin}
    journal.begin(told)
    hours = [protocol.hours * (n + 1) for n in range(method.steps)]
    scores = {h: Scores(setting.world, protocol.estimator) for h in hours}  # type: ignore[arg-type]
    positions = protocol.positions(setting.archive, setting.world, hours[-1])
    times = setting.archive.times[positions]
    method.check(times)
    makes = {
        f"{time:%Y%m%dT%H}": partial(_forecast, method, initial, position)
        for position, time in zip(positions.tolist(), times, strict=True)
    }
    journal.share(makes)
    for key, make in makes.items():
        for lead, part in _by_lead(journal.case(key, make)).items():
            scores[lead].take(part)
    shown = {hours[0], hours[(len(hours) - 1) // 2], hours[-1]}
    summaries = {str(h): s.summary(maps=h in shown) for h, s in scores.items()}
    stamps = [f"{t:%Y-%m-%dT%H}" for t in times]
    return summaries, {**told, "initial_times": stamps}


def _forecast(method: ForecastMethod, initial: Callable[[int], Tensor], position: int) -> Arrays:
    """Statistics of every lead, their names after ``HOURS/``."""
    setting, protocol, found = method.setting, method.protocol, Arrays()
    here = np.array([position])
    time, forcing = setting.archive.times[position], setting.reader.forcing(here)[0]
    generator = members_of(protocol.seed, protocol.members, "forecast", time)
    for later, state in method.run(initial(position), time, forcing, generator):
        lead = int((later - time).total_seconds() // 3600)
        truth = setting.reader.state(here + lead // setting.world.hours)[0]
        part = statistics(setting.world, state, truth, protocol.estimator, later)  # type: ignore[arg-type]
        found |= {f"{lead}/{name}": value for name, value in part.items()}
    return found


def _by_lead(case: Arrays) -> dict[int, Arrays]:
    found: dict[int, Arrays] = {}
    for key, value in case.items():
        lead, _, name = key.partition("/")
        if name:
            found.setdefault(int(lead), {})[name] = value
    return found


def _initial(
    protocol: Protocol, setting: Setting
) -> tuple[Callable[[int], Tensor], dict[str, str]]:
    """From a step to the initial ensemble (M, C, H, W), the same for all entries; its weights."""
    if protocol.initial == "truth":
        states = setting.reader.state
        return lambda n: states(np.array([n])).expand(protocol.members, -1, -1, -1), {}
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

    return analyse, {"analyses_sha256": method.checkpoint.hash}
