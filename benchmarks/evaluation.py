"""What evaluating a 50-member weather protocol costs, against the forecasts, in CPU seconds.

    OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 python benchmarks/evaluation.py

Every step of every member of a protocol is forecast once and evaluated once, so the ratio is that
of one lead of one initial time. Forecasts: a step of all members by the shipped forecaster and
prior, in the form that costs least (``renoise``). Evaluation: the statistics that the leaderboard
keeps, and ``gapzoo.evaluate`` of all fields with many metrics and regions. Both are timed in turn,
the least of each counts. The values do not matter: states are white noise about the climatology.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import pandas as pd
import torch
import xarray as xr

import gapzoo
from gapzoo import checkpoint
from gapzoo.core import MemberGenerator
from gapzoo.core.world import World
from gapzoo.leaderboard.statistics import statistics
from gapzoo.tasks.rollout import Start
from gapzoo.tasks.settings import RolloutSettings, rollout_of

TIME = pd.Timestamp("2006-01-15")
PLAIN = ["rmse", "bias", "mae", "crps", "spread", "spread_skill", "acc"]
MANY = [*PLAIN, "rank_histogram", "energy_score", "spectrum_ratio", "coherence"]
REGIONS = ["global", "tropics", "northern_extratropics", "southern_extratropics"]


FORECASTS = "forecasts"


def cpu(runs: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Least CPU seconds of each of several runs, which take turns."""
    found: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            start = time.process_time()
            run()
            found[name].append(time.process_time() - start)
    return {name: min(seconds) for name, seconds in found.items()}


def forecasting(settings: RolloutSettings) -> tuple[World, Callable[[], object]]:
    """The world, and a step of all members."""
    prior, network = checkpoint.load(settings.prior), checkpoint.load(settings.forecaster)
    world, generator = prior.world, MemberGenerator(0, settings.members)
    rollout = rollout_of(settings, prior, network, world)
    state = 0.5 * generator.randn((settings.members, *world.shape))
    frames = rollout.frames([Start(state, TIME, generator)])
    next(frames)
    return world, lambda: next(frames)


def as_forecast(world: World, states: np.ndarray) -> xr.Dataset:
    """(M, C, H, W) in SI units as one lead of one initial time, or (1, C, H, W) as a truth."""
    axes = {n: np.array(getattr(world.grid, n)) for n in ("latitude", "longitude")}
    fields = {}
    for name in dict.fromkeys(c.variable for c in world.channels):
        at = world.channels.of(name)
        levels = [world.channels[i].level for i in at]
        values = states[:, at]
        dims = ("number", "level", "latitude", "longitude")
        found = xr.DataArray(values, axes, dims)
        fields[name] = (
            found.isel(level=0) if levels[0] is None else found.assign_coords(level=levels)
        )
    return xr.Dataset(fields)


def evaluating(world: World, members: int) -> dict[str, Callable[[], object]]:
    """Kinds of evaluation, of one lead of one initial time."""
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(members + 1, *world.shape, generator=generator)
    states = (z * world.std + world.mean(pd.DatetimeIndex([TIME]))).numpy()
    forecast = as_forecast(world, states[1:]).expand_dims(time=[TIME])
    truth = as_forecast(world, states[:1]).isel(number=0).expand_dims(time=[TIME])
    mean = as_forecast(world, world.mean(pd.DatetimeIndex([TIME])).numpy()).isel(number=0)
    return {
        "leaderboard statistics": lambda: statistics(world, z[1:], z[0], time=TIME),
        "evaluate: RMSE, CRPS": lambda: gapzoo.evaluate(forecast, truth),
        f"evaluate: {len(PLAIN)} metrics, {len(REGIONS)} regions": lambda: gapzoo.evaluate(
            forecast, truth, PLAIN, climatology=mean, regions=REGIONS
        ),
        f"evaluate: {len(MANY)} metrics, {len(REGIONS)} regions": lambda: gapzoo.evaluate(
            forecast, truth, MANY, climatology=mean, regions=REGIONS
        ),
    }


def main() -> None:
    """Print both costs and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prior", default=RolloutSettings.prior)
    parser.add_argument("--forecaster", default=RolloutSettings.forecaster)
    parser.add_argument("--members", type=int, default=50)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    torch.set_num_threads(1)
    settings = RolloutSettings(given.prior, given.forecaster, form="renoise", members=given.members)
    world, step = forecasting(settings)
    took = cpu({FORECASTS: step, **evaluating(world, given.members)}, given.repeats)
    whole = took.pop(FORECASTS)
    print(
        f"{given.members} members of {world.name}, {world.shape}, one lead, CPU seconds, one thread"
    )
    print(f"{FORECASTS:42s}{whole:9.2f} s   ({whole / given.members:.3f} s a member's step)")
    for name, seconds in took.items():
        print(f"{name:42s}{seconds:9.2f} s   {seconds / whole:7.3f} of the forecasts")


if __name__ == "__main__":
    main()
