"""Speed of the roll-out beside SPEEDY's own, on the same core, in one run.

Simulated years a day and seconds a member-day, for the forecaster alone, for the prior around it
at some numbers of sampler steps, with one member and with several side by side, and for SPEEDY.
Seconds are of the process's CPU, so that other processes on the core do not count; one thread.

    taskset -c 1 python benchmarks/rollout.py --members 1 8 --settings single:1 dpmpp_2m:6
    python benchmarks/rollout.py --device cuda --members 64 --days 50 --no-speedy

Settings are SAMPLER:STEPS[:HIGHEST].
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from itertools import islice

import pandas as pd
import torch
from sampling import sampling_of

from gapzoo import checkpoint
from gapzoo.core import MemberGenerator
from gapzoo.forecasters import FORECASTERS
from gapzoo.tasks.initial import Drawn
from gapzoo.tasks.rollout import Rollout, Start
from gapzoo.tasks.sampling import Sampling
from gapzoo.tasks.settings import RolloutSettings, device_of, rollout_of

TIME = pd.Timestamp("2006-01-10")


def seconds(frames: Iterator[object], days: int, device: torch.device) -> float:
    """Of a day, the first left out: CPU's on the CPU, else the wall's."""
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    next(frames)
    if device.type == "cuda":
        torch.cuda.synchronize()
    begun = clock()
    for _ in islice(frames, days):
        pass
    if device.type == "cuda":
        torch.cuda.synchronize()
    return (clock() - begun) / days


def show(name: str, members: int, took: float) -> None:
    """A line."""
    each = took / members
    print(
        f"{name:34s}{members:8d}{took:12.3f}{each:14.4f}{86400 / 365.25 / each:14.0f}", flush=True
    )


def gapzoo(given: argparse.Namespace) -> None:
    """The network alone, and under the prior."""
    prior, network = checkpoint.load(given.prior), checkpoint.load(given.forecaster)
    world, device = prior.world, device_of(given.device)
    for members in given.members:
        streams = MemberGenerator(0, members, device)
        prior.prior.denoiser.to(device)
        states = Drawn(prior.prior, world, Sampling(steps=4, batch=members)).states(TIME, streams)
        for text in ("", *given.settings):
            settings = RolloutSettings(
                prior=given.prior if text else "",
                sampling=sampling_of(text, members) if text else {},
                device=given.device,
            )
            rollout = rollout_of(settings, prior if text else None, network, world)
            frames = rollout.frames([Start(states, TIME, streams)])
            name = f"prior, {text}" if text else "forecaster alone"
            show(name, members, seconds(frames, given.days, device))


def speedy(given: argparse.Namespace) -> None:
    """SPEEDY from the same kind of state."""
    prior = checkpoint.load(given.prior)
    streams = MemberGenerator(0, 1)
    states = Drawn(prior.prior, prior.world, Sampling(steps=8)).states(TIME, streams)
    model = FORECASTERS.build("speedy", world=prior.world, hours=24)
    rollout = Rollout(forecaster=model, world=prior.world, hours=24)
    frames = rollout.frames([Start(states, TIME, streams)])
    show("SPEEDY", 1, seconds(frames, 10 * given.days, torch.device("cpu")))


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prior", default="unet_small.speedy-t21-v4")
    parser.add_argument("--forecaster", default="crpscast_small.speedy-t21-v8")
    parser.add_argument("--members", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--settings", nargs="+", default=["single:1", "dpmpp_2m:6"])
    parser.add_argument("--days", type=int, default=6, help="timed, after one more")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--no-speedy", dest="speedy", action="store_false")
    given = parser.parse_args()
    torch.set_num_threads(1)
    columns = ("members", "s a day", "s member-day", "years a day")
    print(f"{'':34s}{columns[0]:>8s}{columns[1]:>12s}{columns[2]:>14s}{columns[3]:>14s}")
    if given.speedy:
        speedy(given)
    gapzoo(given)


if __name__ == "__main__":
    main()
