"""CRPS against other libraries, one thread, in one run: python benchmarks/crps.py [--full]

Fair CRPS of 50 members, float32 (torchmetrics has the biased estimator only and gives one mean).
Each library gets its own preferred layout, made beforehand; gapzoo starts from (B,M,*E,H,W) and its
time includes the transposition. --full is 96 x 48 x 20 channels x 64 samples, 1.2 GB.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(name, "1")

import numpy as np
import scores.probability
import scoringrules
import torch
import xarray as xr
from torchmetrics.regression import ContinuousRankedProbabilityScore

from gapzoo.evaluators.crps import CRPS, ensemble_crps

MEMBERS = 50


def seconds(run: Callable[[], object], repeats: int) -> float:
    """Least CPU seconds of several runs."""
    found = []
    for _ in range(repeats):
        start = time.process_time()
        run()
        found.append(time.process_time() - start)
    return min(found)


def torchmetrics_crps(members_last: torch.Tensor, truth: torch.Tensor, chunk: int = 4096) -> float:
    """torchmetrics by chunks: its M x M tensor of the whole would not fit in memory."""
    metric = ContinuousRankedProbabilityScore()
    for x, y in zip(members_last.split(chunk), truth.split(chunk), strict=True):
        metric.update(x, y)
    return metric.compute().item()


def candidates(forecast: torch.Tensor, truth: torch.Tensor) -> dict[str, Callable[[], float]]:
    """Name of a method to a call that gives its mean CRPS."""
    rows = forecast.movedim(1, -1).reshape(-1, MEMBERS).contiguous()
    x, y = rows.numpy(), truth.flatten().numpy()
    x_named, y_named = xr.DataArray(x, dims=["point", "member"]), xr.DataArray(y, dims=["point"])

    def rules(estimator: str, part: slice = slice(None)) -> float:
        return float(scoringrules.crps_ensemble(y[part], x[part], estimator=estimator).mean())

    def streamed() -> float:
        metric = CRPS(np.ones(forecast.shape[-2]))
        metric.update(forecast, truth)
        return metric.compute().mean().item()

    def of_scores() -> float:
        return float(
            scores.probability.crps_for_ensemble(x_named, y_named, "member", method="fair")
        )

    return {
        "gapzoo ensemble_crps (fair)": lambda: ensemble_crps(forecast, truth).mean().item(),
        "gapzoo CRPS metric (fair)": streamed,
        "scoringrules fair": lambda: rules("fair"),
        "scoringrules qd (its default, biased)": lambda: rules("qd"),
        "scoringrules pwm (biased)": lambda: rules("pwm"),
        "scores (fair)": of_scores,
        "torchmetrics (biased)": lambda: torchmetrics_crps(rows, truth.flatten()),
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
        value = run()
        took = seconds(run, given.repeats)
        base = base or took
        print(f"{name:40s}{took:9.3f} s{took / base:8.1f} x   mean {value:.6f}")


if __name__ == "__main__":
    main()
