"""Cycled assimilation: the same network observes every few hours, members are carried between.

Scores are those after the spin-up, by network: random columns by their density, and ``radiosondes``
where the protocol has them. ``crps_by_cycle`` holds all of every start; its scored means give
``crps_interval``, the 95 % t-interval over the starts, which have their own networks, errors and
initial ensembles. Blocks of analyses are kept while a start is under way, with the state that the
next one goes on from, so a killed run costs a block at most.
"""

from __future__ import annotations

import dataclasses
import time as clock
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from scipy.stats import t as student
from torch import Tensor

from gapzoo.core import GapzooError
from gapzoo.core.random import derive_seed
from gapzoo.data.observations import ColumnStations, simulate, standard_errors, station_columns
from gapzoo.data.observations.networks.stations import radiosondes
from gapzoo.leaderboard import TRACKS, innovations
from gapzoo.leaderboard.cycles import CYCLES, CycleMethod, Diverged
from gapzoo.leaderboard.journal import Journal
from gapzoo.leaderboard.methods import METHODS, Case, Network, Setting, case, members_of
from gapzoo.leaderboard.protocol import Protocol
from gapzoo.leaderboard.scores import Scores
from gapzoo.leaderboard.statistics import Arrays, statistics
from gapzoo.tasks.sampling import NotFinite

SONDES = "radiosondes"
BLOCKS = 8
"""Parts of a start that are kept on their own."""


@TRACKS.register("cycle")
def run(
    protocol: Protocol, setting: Setting, entry: str, options: dict[str, Any], journal: Journal
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Scores by network, and the method's provenance with the times of the scored analyses.

    Args:
        protocol: of track ``cycle``: ``cases`` starts, ``lead_days`` long, every ``hours``.
        setting: archive and world.
        entry: a cycled method; or an analysis method, which stands alone every time, as ``gap``
            does without a ``forecaster``.
        options: its arguments.
        journal: keeps each start at each network.
    """
    method = _method(protocol, setting, entry, options)
    journal.begin(method.provenance())
    starts = protocol.positions(setting.archive, setting.world, protocol.lead_days * 24)
    steps = protocol.lead_days * 24 // protocol.hours
    days = protocol.cycling.spin_up_days
    spin_up = steps // 2 if days < 0 else days * 24 // protocol.hours
    if not 0 <= spin_up < steps:
        raise GapzooError(f"protocol '{protocol.name}': a spin-up of {days} days leaves no score")
    every = np.arange(steps) * (protocol.hours // setting.world.hours)
    found, cost = {}, {}
    runs: dict[str, dict[str, Callable[[], Arrays]]] = {}
    for label in [*(f"{d:g}" for d in protocol.densities), *_sondes(protocol)]:
        for start in starts.tolist():
            cycle = _Start(method, protocol, label, start + every)
            key = f"{label}-{setting.archive.times[start]:%Y%m%dT%H}"
            runs.setdefault(label, {})[key] = partial(cycle.run, journal, key)
    journal.share({key: make for one in runs.values() for key, make in one.items()})
    for label, one in runs.items():
        parts = [_cycles(journal.case(key, make), steps) for key, make in one.items()]
        found[label] = _summary(protocol, setting, parts, spin_up)
        cost[label] = _cost([one for part in parts for one in part])
    scored = [setting.archive.times[s + every[spin_up:]] for s in starts]
    times = [f"{t:%Y-%m-%dT%H}" for part in scored for t in part]
    return found, {**method.provenance(), "initial_times": times, "cost": cost}


def _sondes(protocol: Protocol) -> list[str]:
    return [SONDES] if protocol.cycling.sondes else []


def _cycles(made: Arrays, steps: int) -> list[Arrays]:
    """Statistics of each analysis, as far as there are any."""
    found: list[Arrays] = [{} for _ in range(steps)]
    for name, value in made.items():
        number, slash, rest = name.partition("/")
        if slash and number.isdigit():
            found[int(number)][rest] = value
    return [part for part in found if part]


def _summary(
    protocol: Protocol, setting: Setting, parts: list[list[Arrays]], spin_up: int
) -> dict[str, Any]:
    """The numbers of one network; infinite scores where a start diverged."""
    steps = protocol.lead_days * 24 // protocol.hours
    estimator: Any = protocol.estimator
    series = []
    for part in parts:
        one = Scores(setting.world, estimator)
        for found in part:
            one.take(found)
        series.append([round(float(x), 5) for x in one.crps_by_case()] if part else [])
    lost = [n for n, part in enumerate(parts) if len(part) < steps]
    if lost:
        worst = {name: float("inf") for name in ("crps", "rmse", "spread_skill")}
        return {**worst, "diverged": lost, "crps_by_cycle": series}
    scored = [found for part in parts for found in part[spin_up:]]
    scores = Scores(setting.world, estimator)
    for found in scored:
        scores.take(found)
    by_start = [float(np.mean(s[spin_up:])) for s in series]
    return {
        **scores.summary(maps=True),
        "crps_by_start": by_start,
        "crps_interval": _interval(by_start),
        "crps_by_cycle": series,
        **_departures(setting, scored),
    }


def _interval(values: list[float]) -> list[float] | None:
    """95 % t-interval of the mean; None of a single value."""
    count = len(values)
    if count < 2:
        return None
    half = float(student.ppf(0.975, count - 1) * np.std(values, ddof=1) / np.sqrt(count))
    return [float(np.mean(values)) - half, float(np.mean(values)) + half]


def _cost(scored: list[Arrays]) -> dict[str, float]:
    """CPU seconds of a forecast and of an analysis, all members, and wall seconds of both.

    Empty where there is no analysis.
    """
    if not scored:
        return {}
    names = ("forecast_cpu", "analysis_cpu", "wall")
    means = np.mean([part["cost"] for part in scored], 0)
    return {name: round(float(value), 3) for name, value in zip(names, means, strict=True)}


def _departures(setting: Setting, scored: list[Arrays]) -> dict[str, Any]:
    found = {}
    for kind in ("innovations", "residuals", "withheld"):
        sums = innovations.merged(scored, kind)
        if sums is not None:
            fitted = kind == "residuals"
            found[kind] = innovations.summary(setting.world, sums, fitted)
    return found


class _Alone(CycleMethod):
    """A one-time method at every cycle, which knows nothing of the one before."""

    def __init__(
        self, setting: Setting, protocol: Protocol, entry: str, options: dict[str, Any]
    ) -> None:
        self.setting, self.protocol, self.members = setting, protocol, protocol.members
        self.method = METHODS.build(entry, setting=setting, **options)

    def prepare(self, network: Any) -> None:
        """See CycleMethod."""
        self.method.prepare(network)

    def first(self, here: Case, generator: Any) -> Tensor | None:
        """None."""
        return None

    def carry(self, analysis: Tensor, before: Case, here: Case, generator: Any) -> Any:
        """None."""
        return None

    def analyse(self, here: Case, background: Tensor | None, generator: Any) -> Tensor:
        """See CycleMethod."""
        return self.method.draw(here, generator)

    def provenance(self) -> dict[str, Any]:
        """See CycleMethod."""
        return dict(self.method.provenance())


def _method(
    protocol: Protocol, setting: Setting, entry: str, options: dict[str, Any]
) -> CycleMethod:
    alone = entry == "gap" and not {"forecaster", "form"} & options.keys()
    if entry not in CYCLES or alone:
        return _Alone(setting, protocol, entry, options)
    return CYCLES.build(entry, setting=setting, protocol=protocol, **options)  # type: ignore[no-any-return]


class _SondeNetwork(Network):
    """Radiosonde-like stations on land, at places of their own."""

    def __init__(self, setting: Setting, count: int, seed: int) -> None:
        world = setting.world
        self.world, self.seed = world, seed
        self.fraction = count / (world.grid.shape[0] * world.grid.shape[1])
        land = setting.archive.static("land_sea_mask")
        stations: Any = radiosondes(world.grid, world.channels, seed, land=land, count=count)
        self.stations = stations
        self.errors = standard_errors(stations, world.channels)

    @property
    def positions(self) -> np.ndarray:
        """(n, 2) latitude and longitude."""
        one = self.stations.channel == 0
        return np.stack([self.stations.latitude[one], self.stations.longitude[one]], 1)


@dataclasses.dataclass
class _Start:
    """One cycle: a method, a network, the steps of the archive.

    Args:
        method: to be run.
        protocol: what is fixed.
        label: of the network.
        positions: archive steps of the analyses.
    """

    method: CycleMethod
    protocol: Protocol
    label: str
    positions: np.ndarray

    def run(self, journal: Journal, key: str) -> Arrays:
        """Statistics of every analysis, their names after ``NUMBER/``; fewer if it diverges."""
        inner = dataclasses.replace(journal, progress=None, wall=0.0, cpu=0.0, commits=[])
        begun = np.array([clock.monotonic(), clock.process_time()])
        self._begin()
        spent = np.array([clock.monotonic(), clock.process_time()]) - begun
        size, found, state = max(1, -(-len(self.positions) // BLOCKS)), Arrays(), Arrays()
        for first in range(0, len(self.positions), size):
            numbers = range(first, min(first + size, len(self.positions)))
            made = inner.case(f"{key}-{first}", lambda n=numbers, s=state: self._block(n, s))  # type: ignore[misc]
            found |= {k: v for k, v in made.items() if k[0].isdigit()}
            state = {k[6:]: v for k, v in made.items() if k.startswith("state/")}
            if not state:
                break
        spent += (inner.wall, inner.cpu)
        return {**found, "cost": spent, "commit": np.array(", ".join(inner.commits))}

    def _begin(self) -> None:
        setting, cycling = self.method.setting, self.protocol.cycling
        seed = derive_seed(self.protocol.seed, "net", int(self.positions[0]))
        if self.label == SONDES:
            self.network: Network = _SondeNetwork(setting, cycling.sondes, seed)
        else:
            self.network = Network(setting.world, float(self.label), seed)
        self.network.label = self.label  # type: ignore[attr-defined]
        self.method.prepare(self.network)
        self.withheld = self._unseen(seed) if cycling.withheld else None

    def _unseen(self, seed: int) -> ColumnStations:
        """Columns beyond those of the network, which are the first ones of its seed."""
        world, share = self.method.setting.world, self.protocol.cycling.withheld
        taken = 0 if self.label == SONDES else len(self.network.positions)
        whole = min(1.0, (0 if not taken else self.network.fraction) + share)
        every = station_columns(world.grid, world.channels, whole, seed)
        return ColumnStations.at(every.columns[taken:], world.grid, world.channels)

    def _block(self, numbers: range, state: Arrays) -> Arrays:
        """Statistics of some analyses and the state after them; no state where it diverged."""
        analysis = torch.from_numpy(state["analysis"]) if state else None
        before = self._case(numbers[0] - 1) if state else None
        self.method.remember(state)
        found = Arrays()
        try:
            for number, drawn, part in self._analyses(numbers, before, analysis):
                analysis = drawn
                found |= {f"{number}/{name}": value for name, value in part.items()}
        except (Diverged, NotFinite):
            return found
        assert analysis is not None
        kept = {"analysis": analysis.numpy(), **self.method.memory()}
        return {**found, **{f"state/{k}": v for k, v in kept.items()}}

    def _analyses(
        self, numbers: range, before: Case | None, analysis: Tensor | None
    ) -> Iterator[tuple[int, Tensor, Arrays]]:
        first = self.method.setting.archive.times[self.positions[0]]
        keys = ("cycle", self.label, first)
        generator = members_of(self.protocol.seed, self.method.members, *keys)
        for number in numbers:
            here = self._case(number)
            wall, cpu = clock.monotonic(), [clock.process_time()]
            streams = generator.fork("forecast", here.time)
            if before is None or analysis is None:
                background = self.method.first(here, streams)
            else:
                background = self.method.carry(analysis, before, here, streams)
            cpu.append(clock.process_time())
            analysis = self.method.analyse(here, background, generator.fork("analysis", here.time))
            cpu.append(clock.process_time())
            part = self._score(here, background, analysis)
            part["cost"] = np.array([*np.diff(cpu), clock.monotonic() - wall])
            before = here
            yield number, analysis, part

    def _case(self, number: int) -> Case:
        position = int(self.positions[number])
        return case(self.method.setting, self.network, position, self.protocol.seed)

    def _score(self, here: Case, background: Tensor | None, analysis: Tensor) -> Arrays:
        if not torch.isfinite(analysis).all():
            raise Diverged(f"the analysis of {here.time} is not finite")
        world, estimator = self.method.setting.world, self.protocol.estimator
        part = statistics(world, analysis, here.truth, estimator, here.time)  # type: ignore[arg-type]
        net = self.network
        seen = (world, net.stations, here.observations, net.errors, here.time)
        if background is not None:
            part["innovations"] = innovations.departures(*seen, background, analysis)
        part["residuals"] = innovations.departures(*seen, analysis, fitted=True)
        if self.withheld is not None:
            part["withheld"] = self._against(here, analysis)
        return part

    def _against(self, here: Case, analysis: Tensor) -> np.ndarray:
        """Departures of observations that the analysis has not seen."""
        setting, unseen = self.method.setting, self.withheld
        assert unseen is not None
        errors = standard_errors(unseen, setting.world.channels)
        physical = setting.reader.physical(np.array([here.position]))[0]
        noise = derive_seed(
            self.protocol.seed, "withheld", self.label, self.network.seed, here.time
        )
        y = simulate(physical, unseen, errors, noise)
        return innovations.departures(setting.world, unseen, y, errors, here.time, analysis)
