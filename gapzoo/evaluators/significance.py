"""Intervals and p-values by block bootstrap over initial times.

Scores of neighbouring initial times are correlated, so blocks of ``block`` consecutive ones are
drawn with replacement, wrapping round (circular block bootstrap, Politis & Romano 1992). For draw r

    n_rb       how often sample b was drawn,  sum_b n_rb = B
    score_r    = finish(sum_b n_rb S_b / sum_b n_rb W_b)

so that the root of an RMSE, or the ratio of a spread/skill, is taken after resampling. The interval
holds the quantiles of score_r. For two forecasts of the same samples the difference d of scores is
resampled in pairs, and its two-sided p-value is (1 + #{|d_r - d| >= |d|}) / (1 + R) for no
difference (Hall & Wilson 1991: resample about the estimate). Of an extreme the draws show how much
single samples decide it; a bootstrap has no exact coverage there (Bickel & Freedman 1981).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gapzoo.core import GapzooError
from gapzoo.evaluators.base import Evaluator, Sums


@dataclass(frozen=True)
class Interval:
    """A score and its interval; each (*E), as the metric's ``compute``."""

    value: Tensor
    low: Tensor
    high: Tensor


@dataclass(frozen=True)
class Difference(Interval):
    """Score of the first less the second forecast, its interval and two-sided p-value."""

    p: Tensor


def joined(chunks: Sequence[Sums]) -> Sums:
    """Sums of consecutive chunks of samples as one, (B,*E) each, in the order given."""
    return {name: torch.cat([chunk[name] for chunk in chunks]) for name in chunks[0]}


def draws(samples: int, block: int, resamples: int, generator: np.random.Generator) -> np.ndarray:
    """(R,B) times that each of B samples is drawn, by circular blocks."""
    if not 1 <= block <= samples:
        raise GapzooError(f"block of {block} initial times; take 1 to {samples}, all there are")
    number = -(-samples // block)
    starts = generator.integers(samples, size=(resamples, number))
    at = (starts[..., None] + np.arange(block)) % samples
    at = at.reshape(resamples, -1)[:, :samples]
    return np.stack([np.bincount(row, minlength=samples) for row in at])


def interval(
    metric: Evaluator,
    sums: Sums,
    *,
    block: int,
    generator: np.random.Generator,
    resamples: int = 1000,
    level: float = 0.95,
) -> Interval:
    """Bootstrap interval of a metric.

    Args:
        metric: any Evaluator; only its ``score`` is used.
        sums: from ``metric.samples``, in the order of initial times (see ``joined``).
        block: initial times in a block, longer than scores stay correlated.
        generator: source of the draws.
        resamples: number of draws R.
        level: probability that the interval holds.
    """
    counts = draws(len(sums["weight"]), block, resamples, generator)
    scores = _scores(metric, sums, counts)
    return Interval(_score(metric, sums), *_quantiles(scores, level))


def compare(
    metric: Evaluator,
    first: Sums,
    second: Sums,
    *,
    block: int,
    generator: np.random.Generator,
    resamples: int = 1000,
    level: float = 0.95,
) -> Difference:
    """Paired difference of two forecasts of the same initial times; arguments as ``interval``.

    Raises:
        GapzooError: where the two have different numbers of samples.
    """
    sizes = len(first["weight"]), len(second["weight"])
    if sizes[0] != sizes[1]:
        raise GapzooError(f"{sizes[0]} and {sizes[1]} initial times; compare the same ones")
    counts = draws(sizes[0], block, resamples, generator)
    value = _score(metric, first) - _score(metric, second)
    scores = _scores(metric, first, counts) - _scores(metric, second, counts)
    beyond = ((scores - value).abs() >= value.abs()).sum(0)
    p = torch.where(torch.isfinite(value), (1 + beyond) / (1 + resamples), torch.nan)
    return Difference(value, *_quantiles(scores, level), p)


def _score(metric: Evaluator, sums: Sums) -> Tensor:
    return metric.score(metric.total(sums))


def _scores(metric: Evaluator, sums: Sums, counts: np.ndarray) -> Tensor:
    """(R,*E) scores of the draws."""
    times = torch.as_tensor(counts, dtype=torch.float64, device=sums["weight"].device)
    drawn = {
        n: torch.tensordot(times, v, dims=1) for n, v in sums.items() if n not in metric.maxima
    }

    def totals(r: int) -> Sums:
        greatest = {n: sums[n][times[r] > 0].amax(0) for n in metric.maxima}
        return {**{n: v[r] for n, v in drawn.items()}, **greatest}

    return torch.stack([metric.score(totals(r)) for r in range(len(counts))])


def _quantiles(scores: Tensor, level: float) -> tuple[Tensor, Tensor]:
    tail = (1 - level) / 2
    return scores.quantile(tail, 0), scores.quantile(1 - tail, 0)
