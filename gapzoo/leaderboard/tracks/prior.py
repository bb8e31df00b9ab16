"""The prior itself: do its unconditional samples look like the archive?

Samples at the protocol's dates, with the forcing of the date and no observation, against the
archive's states of the whole period, both as anomalies in SI units:

    spectrum   power by channel and zonal wavenumber k, samples over archive, up to the truncation
    histogram  total variation distance of each channel's histogram, 40 bins of 0.25 spreads
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from gapzoo.core import GapzooError
from gapzoo.core.world import World
from gapzoo.evaluators.spectra import zonal_power
from gapzoo.leaderboard import TRACKS
from gapzoo.leaderboard.journal import Journal
from gapzoo.leaderboard.methods import Setting, checkpoint_for, members_of
from gapzoo.leaderboard.protocol import Protocol
from gapzoo.leaderboard.statistics import Arrays
from gapzoo.tasks.assimilation import Assimilation
from gapzoo.tasks.sampling import Sampling

REFERENCE_STATES = 512
BINS = np.concatenate([[-np.inf], np.linspace(-4.75, 4.75, 39), [np.inf]])


@TRACKS.register("prior")
def run(
    protocol: Protocol, setting: Setting, entry: str, options: dict[str, Any], journal: Journal
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Spectra and histograms of ``gap`` samples; of other training years for ``climatology``."""
    every = setting.archive.indices(protocol.period[0], protocol.period[1])
    rows = np.linspace(0, len(every) - 1, min(REFERENCE_STATES, len(every))).astype(int)
    truth = _Statistics(setting.world)
    for part in np.array_split(every[rows], 16):
        truth.add(setting.reader.state(part))
    drawn = _Statistics(setting.world)
    if entry == "climatology":
        drawn.add(setting.sample(protocol.cases * protocol.members))
        return compare(drawn, truth), {}
    if entry != "gap" or "prior" not in options:
        raise GapzooError(f"entry '{entry}': it is 'climatology', or 'gap' with 'prior'=CHECKPOINT")
    source = checkpoint_for(setting, options["prior"])
    sampling = Sampling.of({k: v for k, v in options.items() if k != "prior"})
    names = {"checkpoint": source.name, "weights_sha256": source.hash}
    provenance = {**names, "sampling": vars(sampling)}
    journal.begin(provenance)
    task = Assimilation(prior=source.prior, world=source.world, sampling=sampling, form="none")
    positions = protocol.positions(setting.archive, setting.world)
    times = setting.archive.times[positions]

    def make(position: int, time: pd.Timestamp) -> Arrays:
        generator = members_of(protocol.seed, protocol.members, "prior", time)
        forcing = setting.reader.forcing(np.array([position]))[0]
        one = _Statistics(setting.world)
        states = task.analyse(time, generator, forcing=forcing)[None]
        one.add(setting.world.renormalise(states, pd.DatetimeIndex([time]), source.world)[0])
        return one.arrays()

    makes = {
        f"{time:%Y%m%dT%H}": partial(make, position, time)
        for position, time in zip(positions.tolist(), times, strict=True)
    }
    journal.share(makes)
    for key, one in makes.items():
        drawn.take(journal.case(key, one))
    stamps = [f"{t:%Y-%m-%dT%H}" for t in times]
    return compare(drawn, truth), {**provenance, "initial_times": stamps}


class _Statistics:
    """Sums of spectra and histograms."""

    def __init__(self, world: World) -> None:
        self.world, self.count = world, 0
        self.power: Any = 0.0
        self.histogram: Any = 0.0
        self.square: Any = 0.0

    def add(self, states: Tensor) -> None:
        """Add (N, C, H, W) normalised states."""
        anomaly = (states * self.world.std).double()
        weights = torch.from_numpy(self.world.grid.area_weights)
        power = zonal_power(anomaly)
        self.power = self.power + torch.einsum("nchk,h->ck", power, weights).numpy()
        self.square = self.square + (anomaly**2 * weights[:, None]).sum((0, 2, 3)).numpy()
        self.count += len(states)
        self.histogram = self.histogram + self._histogram(anomaly.numpy(), weights.numpy())

    def arrays(self) -> Arrays:
        """The sums by name."""
        sums = {"power": self.power, "histogram": self.histogram, "square": self.square}
        return {**sums, "count": np.array(self.count)}

    def take(self, other: Arrays) -> None:
        """Add what ``arrays`` gave."""
        self.power = self.power + other["power"]
        self.histogram = self.histogram + other["histogram"]
        self.square = self.square + other["square"]
        self.count += int(other["count"])

    def _histogram(self, anomaly: np.ndarray, weights: np.ndarray) -> np.ndarray:
        shape = anomaly.shape
        point = np.broadcast_to(weights[:, None], (shape[0], *shape[2:])).ravel()
        scaled = anomaly / self.world.spread[:, None, None]
        bins = [np.digitize(field.ravel(), BINS[1:-1]) for field in scaled.swapaxes(0, 1)]
        rows = [np.bincount(at, point, len(BINS) - 1) for at in bins]
        return np.stack(rows)


def compare(drawn: _Statistics, truth: _Statistics) -> dict[str, Any]:
    """Ratios of spectra and spread, distances of histograms; by variable and overall."""
    world = truth.world
    last = min(world.grid.shape[1] // 3, drawn.power.shape[1] - 1)
    ratio = (drawn.power / drawn.count)[:, : last + 1] / (truth.power / truth.count)[:, : last + 1]
    shares = [s.histogram / s.histogram.sum(1, keepdims=True) for s in (drawn, truth)]
    distance = 0.5 * np.abs(shares[0] - shares[1]).sum(1)
    spread = np.sqrt(drawn.square / drawn.count / (truth.square / truth.count))
    groups = {"all": list(range(len(world.channels)))}
    for channel in world.channels:
        groups.setdefault(channel.variable, world.channels.of(channel.variable))
    return {name: _summary(ratio[i], distance[i], spread[i]) for name, i in groups.items()}


def _summary(ratio: np.ndarray, distance: np.ndarray, spread: np.ndarray) -> dict[str, Any]:
    mean = ratio.mean(0)
    return {
        "spectrum_error": float(np.abs(mean - 1).mean()),
        "spectrum_worst": float(np.abs(mean - 1).max()),
        "histogram_distance": float(distance.mean()),
        "histogram_worst": float(distance.max()),
        "spread_ratio": float(spread.mean()),
        "spectrum_ratio": [round(float(x), 3) for x in mean],
    }
