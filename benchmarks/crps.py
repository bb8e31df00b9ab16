"""CRPS against other libraries in one run, in CPU seconds on one thread.

    OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 python benchmarks/crps.py [--full]

CRPS of 50 members, float32; the fair estimator where a library has it. The others get members last
in memory, made beforehand, and one sample at a time (all at once takes tens of GB of some);
gapzoo starts from (B,M,*E,H,W) and its time includes the transposition. --full is 96 x 48 x 20
channels x 64 samples: 3 GB and some minutes.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import scores.probability
import scoringrules
import torch
import xarray as xr
from torchmetrics.regression import ContinuousRankedProbabilityScore

from gapzoo.evaluators.crps import CRPS, ensemble_crps

MEMBERS = 50


def timed(run: Callable[[], float], repeats: int) -> tuple[float, float]:
    """Least CPU seconds of several runs, and what they return."""
    found = []
    for _ in range(repeats):
        start = time.process_time()
        value = run()
        found.append(time.process_time() - start)
    return min(found), value


def torchmetrics_crps(x: np.ndarray, y: np.ndarray, chunk: int = 4096) -> float:
    """torchmetrics in chunks that keep its M x M tensor small."""
    metric = ContinuousRankedProbabilityScore()
    pairs = zip(torch.from_numpy(x).split(chunk), torch.from_numpy(y).split(chunk), strict=True)
    for members, truth in pairs:
        metric.update(members, truth)
    return metric.compute().item()


def scores_crps(x: np.ndarray, y: np.ndarray) -> float:
    """The mean of scores' fair CRPS."""
    named = xr.DataArray(x, dims=["point", "member"]), xr.DataArray(y, dims=["point"])
    return float(scores.probability.crps_for_ensemble(*named, "member", method="fair"))


def rules_crps(estimator: str) -> Callable[[np.ndarray, np.ndarray], float]:
    """The mean of one of scoringrules' estimators."""
    return lambda x, y: float(scoringrules.crps_ensemble(y, x, estimator=estimator).mean())


OTHERS = {
    "scoringrules pwm (fair)": rules_crps("pwm"),
    "scoringrules qd (biased, its default)": rules_crps("qd"),
    "scores fair": scores_crps,
    "torchmetrics (biased)": torchmetrics_crps,
    "scoringrules fair": rules_crps("fair"),
}
"""The pairwise one last: it takes the longest."""


def candidates(forecast: torch.Tensor, truth: torch.Tensor) -> dict[str, Callable[[], float]]:
    """Name of a method to a call that gives its mean CRPS."""
    x = forecast.movedim(1, -1).reshape(len(truth), -1, MEMBERS).contiguous().numpy()
    y = truth.flatten(1).numpy()

    def streamed() -> float:
        metric = CRPS(np.ones(forecast.shape[-2]))
        metric.update(forecast, truth)
        return metric.compute().mean().item()

    def by_samples(score: Callable[[np.ndarray, np.ndarray], float]) -> Callable[[], float]:
        return lambda: float(np.mean([score(a, b) for a, b in zip(x, y, strict=True)]))

    return {
        "gapzoo ensemble_crps (fair)": lambda: ensemble_crps(forecast, truth).mean().item(),
        "gapzoo CRPS metric (fair)": streamed,
        **{name: by_samples(score) for name, score in OTHERS.items()},
    }


def main() -> None:
    """Print a table: CPU seconds, ratio to gapzoo, mean CRPS."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help="96x48x20x64 instead of 96x48x20x1")
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    torch.set_num_threads(1)
    samples = 64 if given.full else 1
    generator = torch.Generator().manual_seed(0)
    forecast = torch.randn(samples, MEMBERS, 20, 48, 96, generator=generator)
    truth = torch.randn(samples, 20, 48, 96, generator=generator)
    print(f"CRPS of {MEMBERS} members at {truth.numel():,} points, CPU seconds, one thread")
    base = None
    for name, run in candidates(forecast, truth).items():
        took, value = timed(run, given.repeats)
        base = base or took
        print(f"{name:40s}{took:9.3f} s{took / base:8.1f} x   mean {value:.6f}", flush=True)


if __name__ == "__main__":
    main()
