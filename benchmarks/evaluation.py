"""What evaluating a 50-member weather protocol costs, against the forecasts, in CPU seconds.

    OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 python benchmarks/evaluation.py

Every step of every member of a protocol is forecast once and evaluated once, so the ratio is that
of one lead of one initial time. Forecasts: steps of the shipped forecaster and prior are really
made, for few members, and scaled to 50 (form ``renoise``, the cheaper of the two). Evaluation: the
statistics that the leaderboard keeps, and ``gapzoo.evaluate`` of all fields with many metrics and
regions. The values do not matter: states are white noise about the climatology.
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


def cpu(run: Callable[[], object], repeats: int) -> float:
    """Least CPU seconds of several runs."""
    found = []
    for _ in range(repeats):
        start = time.process_time()
        run()
        found.append(time.process_time() - start)
    return min(found)


def forecasting(settings: RolloutSettings, repeats: int) -> tuple[World, float]:
    """The world, and CPU seconds of one step of one member."""
    prior, network = checkpoint.load(settings.prior), checkpoint.load(settings.forecaster)
    world, generator = prior.world, MemberGenerator(0, settings.members)
    rollout = rollout_of(settings, prior, network, world)
    state = 0.5 * generator.randn((settings.members, *world.shape))
    frames = rollout.frames([Start(state, TIME, generator)])
    next(frames)
    return world, cpu(lambda: next(frames), repeats) / settings.members


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


def evaluating(world: World, members: int, repeats: int) -> dict[str, float]:
    """CPU seconds by kind of evaluation, of one lead of one initial time."""
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(members + 1, *world.shape, generator=generator)
    states = (z * world.std + world.mean(pd.DatetimeIndex([TIME]))).numpy()
    forecast = as_forecast(world, states[1:]).expand_dims(time=[TIME])
    truth = as_forecast(world, states[:1]).isel(number=0).expand_dims(time=[TIME])
    mean = as_forecast(world, world.mean(pd.DatetimeIndex([TIME])).numpy()).isel(number=0)
    runs = {
        "leaderboard statistics": lambda: statistics(world, z[1:], z[0], time=TIME),
        "evaluate: RMSE, CRPS": lambda: gapzoo.evaluate(forecast, truth),
        f"evaluate: {len(PLAIN)} metrics, {len(REGIONS)} regions": lambda: gapzoo.evaluate(
            forecast, truth, PLAIN, climatology=mean, regions=REGIONS
        ),
        f"evaluate: {len(MANY)} metrics, {len(REGIONS)} regions": lambda: gapzoo.evaluate(
            forecast, truth, MANY, climatology=mean, regions=REGIONS
        ),
    }
    return {name: cpu(run, repeats) for name, run in runs.items()}


def main() -> None:
    """Print both costs and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prior", default=RolloutSettings.prior)
    parser.add_argument("--forecaster", default=RolloutSettings.forecaster)
    parser.add_argument("--members", type=int, default=50)
    parser.add_argument("--drawn", type=int, default=4, help="members whose steps are timed")
    parser.add_argument("--repeats", type=int, default=2)
    given = parser.parse_args()
    torch.set_num_threads(1)
    settings = RolloutSettings(given.prior, given.forecaster, form="renoise", members=given.drawn)
    world, step = forecasting(settings, given.repeats)
    whole = step * given.members
    print(
        f"{given.members} members of {world.name}, {world.shape}, one lead, CPU seconds, one thread"
    )
    print(f"{'forecasts':42s}{whole:9.2f} s   ({step:.3f} s a member's step)", flush=True)
    for name, took in evaluating(world, given.members, given.repeats).items():
        print(f"{name:42s}{took:9.2f} s   {took / whole:7.3f} of the forecasts", flush=True)


if __name__ == "__main__":
    main()
