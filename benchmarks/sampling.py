"""Sampler and steps against skill: forecasts under the prior, in one run.

CRPS and spread over skill on the first and the last day, and CPU seconds of a member-day (the
forecaster's part among them), for each SAMPLER:STEPS[:HIGHEST], one thread; ``--png`` draws CRPS
against seconds. Cases are spread over the validation years, from the truth.

    OMP_NUM_THREADS=1 python benchmarks/sampling.py archives/speedy-t21.zarr --png trade.png
"""

from __future__ import annotations

import argparse
import time
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from gapzoo import checkpoint
from gapzoo.core.random import MemberGenerator
from gapzoo.data.archive import Archive
from gapzoo.data.module import Reader
from gapzoo.leaderboard.scores import Scores
from gapzoo.leaderboard.statistics import statistics
from gapzoo.tasks.forced import persisted
from gapzoo.tasks.rollout import Rollout
from gapzoo.tasks.settings import RolloutSettings, rollout_of

SETTINGS = (
    "exponential:1:1", "exponential:2:2", "exponential:3:2", "exponential:6", "dpmpp_2m:2",
    "dpmpp_2m:3", "dpmpp_2m:6", "dpmpp_2m:16",
)  # fmt: skip


def sampling_of(text: str, members: int) -> dict[str, object]:
    """Options of ``Sampling`` from SAMPLER:STEPS[:HIGHEST]."""
    name, steps, *highest = text.split(":")
    found: dict[str, object] = {"sampler": name, "steps": int(steps), "batch": members}
    return {**found, "sampler_options": {"highest": float(highest[0])}} if highest else found


def measured(rollout: Rollout, reader: Reader, rows: np.ndarray, given: argparse.Namespace) -> list:
    """CRPS and spread/skill of the first and the last day, CPU seconds of a member-day."""
    scores, spent = {1: Scores(reader.world), given.days: Scores(reader.world)}, 0.0
    for row in rows:
        here = np.array([row])
        start, moment = reader.state(here), reader.archive.times[row]
        sea = persisted(reader.forcing(here)[0])
        streams, begun = MemberGenerator(given.seed, given.members), time.process_time()
        frames = rollout.run(start.expand(given.members, -1, -1, -1), moment, streams, sea)
        for day, (then, states) in enumerate(islice(frames, given.days), 1):
            if day in scores:
                truth = reader.state(here + day * 24 // reader.world.hours)[0]
                scores[day].take(statistics(reader.world, states, truth, "fair", then))
        spent += time.process_time() - begun
    found = [scores[day].summary() for day in (1, given.days)]
    told = [value for one in found for value in (one["crps"], one["spread_skill"])]
    return [*told, spent / (len(rows) * given.days * given.members)]


def draw(path: Path, rows: dict[str, list], days: int) -> None:
    """CRPS of the last day against CPU seconds."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 4), layout="constrained")
    for name in dict.fromkeys(key.split(":")[0] for key in rows):
        mine = {k: v for k, v in rows.items() if k.startswith(name)}
        axes.plot([v[-1] for v in mine.values()], [v[2] for v in mine.values()], "o-", label=name)
        for key, value in mine.items():
            axes.annotate(key.split(":")[1], (value[-1], value[2]), xytext=(4, 4),
                          textcoords="offset points")  # fmt: skip
    axes.set(xlabel="CPU seconds a member-day", ylabel=f"fair CRPS, day {days}")
    axes.legend(title="steps by sampler")
    figure.savefig(path, dpi=150)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("archive", type=Path)
    parser.add_argument("--prior", default="unet_small.speedy-t21-v4")
    parser.add_argument("--forecaster", default="convcast_small.speedy-t21-v3")
    parser.add_argument("--period", nargs=2, default=["2004-01-01", "2005-12-01"])
    parser.add_argument("--settings", nargs="+", default=SETTINGS)
    parser.add_argument("--cases", type=int, default=4)
    parser.add_argument("--members", type=int, default=8)
    parser.add_argument("--days", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--png", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    prior, network = checkpoint.load(given.prior), checkpoint.load(given.forecaster)
    reader, found = Reader(Archive(given.archive), prior.world), {}
    every = reader.archive.indices(*given.period)
    rows = every[np.linspace(0, len(every) - 1, given.cases + 2).astype(int)[1:-1]]
    last = given.days
    heads = ("CRPS 1", "s/s 1", f"CRPS {last}", f"s/s {last}", "s a member-day")
    print(f"{'':18s}" + "".join(f"{head:>16s}" for head in heads))
    for text in given.settings:
        settings = RolloutSettings(prior=given.prior, sampling=sampling_of(text, given.members))
        one = measured(rollout_of(settings, prior, network, prior.world), reader, rows, given)
        found[text] = one
        digits = (4, 2, 4, 2, 3)
        cells = [f"{value:16.{n}f}" for value, n in zip(one, digits, strict=True)]
        print(f"{text:18s}" + "".join(cells), flush=True)
    if given.png:
        draw(given.png, found, given.days)


if __name__ == "__main__":
    main()
