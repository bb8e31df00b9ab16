"""Two forecasts of the same initial times: which is the better, and whether that is real.

Differences of scores, their intervals and p-values are by block bootstrap over initial times (see
``significance``), paired: both forecasts are drawn alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
import xarray as xr

from gapzoo.core import GapzooError
from gapzoo.evaluators import EVALUATORS
from gapzoo.evaluators.align import LEAD
from gapzoo.evaluators.entry import Needed, settings, tallied
from gapzoo.evaluators.significance import compare
from gapzoo.evaluators.standard import standard
from gapzoo.evaluators.tally import Tally

DECORRELATION = np.timedelta64(120, "h")
"""Within this, scores of initial times are taken for alike."""
LEAST_BLOCKS = 5
COMPARED = ("first", "second", "difference", "low", "high", "p")


def compare_forecasts(
    first: xr.Dataset,
    second: xr.Dataset,
    truth: xr.Dataset,
    metrics: Sequence[str] = ("rmse", "crps"),
    *,
    climatology: xr.Dataset | None = None,
    edges: xr.Dataset | None = None,
    block: int | None = None,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
    seasons: Sequence[str] = ("all",),
    **given: Any,
) -> xr.Dataset:
    """Scores of two forecasts, their difference, its interval and its p-value.

    Args:
        first: in the layout of WeatherBench 2; only initial times and leads of both count.
        second: the reference.
        truth: as for ``gapzoo.evaluate``, and so are ``metrics`` (without axes of their own),
            ``climatology``, ``edges``, ``seasons`` and what else is ``given``.
        block: initial times in a block; None takes the most that lie within 120 h.
        resamples: number of draws.
        level: probability that the interval holds.
        seed: of the draws.

    Returns:
        Each variable (season, region, metric, prediction_timedelta, [level], compared), where
        ``compared`` is first, second, difference (first less second), low, high, p.

    Raises:
        GapzooError: as ``gapzoo.evaluate``; where nothing is in common, or there are fewer than
            five blocks.
    """
    _require_plain(metrics)
    pair = _common(standard(first, lead=True), standard(second, lead=True))
    needed = Needed.of(metrics, climatology, edges, None)
    times = pair[0].indexes["time"]
    block = block or most_within(times)
    if len(times) // block < LEAST_BLOCKS:
        raise GapzooError(
            f"{len(times)} initial times in common are fewer than {LEAST_BLOCKS} blocks of "
            f"{block}; forecast from more"
        )
    each = [tallied(f, truth, needed, seasons=seasons, keep=True, **given) for f in pair]
    names = [name for name in each[0] if name in each[1]]
    how = {"block": block, "resamples": resamples, "level": level}
    found = {name: _compared(each[0][name], each[1][name], how, seed) for name in names}
    attrs = {"initial_times": len(times), "seed": seed, **how, **settings(each[0])}
    return xr.Dataset(found, attrs=attrs)


def most_within(times: pd.DatetimeIndex, span: np.timedelta64 = DECORRELATION) -> int:
    """The most initial times that lie within a span, at least 1."""
    ordered = times.sort_values()
    ends = ordered.searchsorted(ordered + pd.Timedelta(span))
    return int(max(ends - np.arange(len(ordered)), default=1))


def _require_plain(metrics: Sequence[str]) -> None:
    for name in metrics:
        kind: Any = EVALUATORS[name]
        if kind.bins or kind.along_lead or kind.series:
            raise GapzooError(f"metric '{name}' has axes of its own; compare single numbers")


def _common(first: xr.Dataset, second: xr.Dataset) -> tuple[xr.Dataset, xr.Dataset]:
    """Both at the initial times and leads that both have, in order of time."""
    for name in ("time", LEAD):
        shared = np.intersect1d(first[name].values, second[name].values)
        if not len(shared):
            raise GapzooError(f"the two forecasts have no '{name}' in common; compare others")
        first, second = (
            d if np.array_equal(d[name].values, shared) else d.sel({name: shared})
            for d in (first, second)
        )
    return first, second


def _compared(
    first: Mapping[str, Tally], second: Mapping[str, Tally], how: Mapping[str, Any], seed: int
) -> xr.DataArray:
    """(season, region, metric, *E, compared) of one variable."""
    some = next(iter(first.values()))
    if [list(c) for c in some.coords.values()] != [
        list(c) for c in next(iter(second.values())).coords.values()
    ]:
        raise GapzooError("the two forecasts have other levels; select the same")

    def one(metric: str, key: tuple[str, str]) -> torch.Tensor:
        evaluator = first[metric].evaluators[key[1]]
        draws = np.random.default_rng(seed)
        pair = [group[metric].samples(key) for group in (first, second)]
        found = compare(evaluator, *pair, generator=draws, **how)
        own = [evaluator.score(evaluator.total(sums)) for sums in pair]
        return torch.stack([*own, found.value, found.low, found.high, found.p], -1)

    values = [
        [[one(m, (s, r)).cpu() for m in first] for r in some.evaluators] for s in some.seasons
    ]
    stacked = torch.stack([torch.stack([torch.stack(ms) for ms in rs]) for rs in values])
    axes = {"season": list(some.seasons), "region": list(some.evaluators), "metric": list(first)}
    every: dict[str, Any] = {**axes, **some.coords, "compared": list(COMPARED)}
    own = {"levels": list(some.coords["level"])} if "level" in some.coords else {}
    return xr.DataArray(stacked.numpy(), every, list(every), attrs=own)
