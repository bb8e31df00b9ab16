"""Which ranks are real: intervals of a row's scores, paired differences of two rows.

Both are by block bootstrap over initial times (gapzoo.evaluators.significance), from the statistics
that a row keeps of every case. A block holds the initial times of ``DECORRELATION``
(gapzoo.evaluators.paired), within which scores are alike; with fewer than ``LEAST_BLOCKS`` blocks
there is no interval, since what is drawn from a handful of values is too narrow. Draws are of one
seed, so that numbers are the same every time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch

from gapzoo.evaluators import EVALUATORS
from gapzoo.evaluators.base import Evaluator, Sums
from gapzoo.evaluators.paired import LEAST_BLOCKS, most_within
from gapzoo.evaluators.significance import compare, interval

LEVEL = 0.95
TERMS = {
    "crps": ("crps",),
    "rmse": ("squared_error",),
    "spread_skill": ("corrected_variance", "squared_error"),
    "acc": ("fo", "ff", "oo"),
    "rpss": ("rps", "climate_rps"),
}
"""What each score is a function of, as rows keep it by case; others are the mean of themselves."""
MEAN = "crps"
"""A score that is the mean of one statistic, in whose place others of that kind are resampled."""
Range = tuple[float, float]


@dataclass(frozen=True)
class Contrast:
    """Score of a row less that of a reference, its interval and p-value of no difference."""

    difference: float
    low: float
    high: float
    p: float


def block(row: dict[str, Any]) -> int:
    """Initial times in a block: the most that lie within ``DECORRELATION``."""
    return most_within(pd.DatetimeIndex(row.get("initial_times", [])))


def testable(row: dict[str, Any]) -> bool:
    """Whether a row has enough initial times, and kept their scores."""
    cases = len(row.get("initial_times", []))
    kept = any("by_case" in found for found in row["scores"].values())
    return kept and cases // block(row) >= LEAST_BLOCKS


def bounds(row: dict[str, Any], metric: str, label: str = "mean") -> dict[str, Range]:
    """Interval of a score at every setting that has one; empty where there is none.

    Args:
        row: of any protocol.
        metric: whose terms rows keep by case.
        label: ``mean`` over channels, or a headline field.
    """
    return all_bounds(row, metric, [label]).get(label, {})


def all_bounds(
    row: dict[str, Any], metric: str, labels: Sequence[str]
) -> dict[str, dict[str, Range]]:
    """The same of several labels at once, by label and setting."""
    keys, sums = _sums(row, metric, labels)
    if not keys:
        return {}
    found = interval(_metric(metric), sums, block=block(row), generator=_draws(), level=LEVEL)
    return _nested(keys, zip(found.low.tolist(), found.high.tolist(), strict=True))


def contrasts(
    row: dict[str, Any], reference: dict[str, Any], metric: str, label: str = "mean"
) -> dict[str, Contrast]:
    """Paired differences at every setting that both rows have; empty where there are none.

    Args:
        row: of a protocol.
        reference: another of the same, see ``rows.refuse_unlike``.
        metric: whose terms rows keep by case.
        label: ``mean`` over channels, or a headline field.
    """
    return all_contrasts(row, reference, metric, [label]).get(label, {})


def all_contrasts(
    row: dict[str, Any], reference: dict[str, Any], metric: str, labels: Sequence[str]
) -> dict[str, dict[str, Contrast]]:
    """The same of several labels at once, by label and setting."""
    (mine, first), (theirs, second) = (_sums(r, metric, labels) for r in (row, reference))
    keys = [key for key in mine if key in theirs]
    if not keys:
        return {}
    first = {n: x[:, [mine.index(k) for k in keys]] for n, x in first.items()}
    second = {n: x[:, [theirs.index(k) for k in keys]] for n, x in second.items()}
    found = compare(
        _metric(metric), first, second, block=block(row), generator=_draws(), level=LEVEL
    )
    columns = (found.value, found.low, found.high, found.p)
    numbers = zip(*(c.tolist() for c in columns), strict=True)
    return _nested(keys, (Contrast(*n) for n in numbers))


def _nested(keys: list[tuple[str, str]], values: Iterable[Any]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for (label, setting), value in zip(keys, values, strict=True):
        found.setdefault(label, {})[setting] = value
    return found


def _sums(
    row: dict[str, Any], metric: str, labels: Sequence[str]
) -> tuple[list[tuple[str, str]], Sums]:
    """Labels and settings that there are, N, and each term as (cases, N)."""
    if not testable(row):
        return [], {}
    kept = {s: found.get("by_case", {}) for s, found in row["scores"].items()}
    terms = TERMS.get(metric, (metric,))
    keys = [
        (n, s) for n in labels for s, v in kept.items() if all(n in v.get(t, {}) for t in terms)
    ]
    if not keys:
        return [], {}
    sums = {
        term: torch.tensor([kept[s][term][n] for n, s in keys], dtype=torch.float64).T
        for term in terms
    }
    ones = torch.ones_like(next(iter(sums.values())))
    if metric == "acc":
        sums |= {"f": 0 * ones, "o": 0 * ones}
    if metric not in TERMS:
        sums = {MEAN: sums[metric]}
    return keys, {"weight": ones, **sums}


def _metric(name: str) -> Evaluator:
    options = {"order": "pooled"} if name == "acc" else {}
    known = name if name in TERMS else MEAN
    metric: Evaluator = EVALUATORS.build(known, area_weights=[1.0], **options)
    return metric


def _draws() -> np.random.Generator:
    return np.random.default_rng(0)
