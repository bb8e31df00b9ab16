"""``gapzoo.evaluate``: scores of any forecast in the layout of WeatherBench 2, ours or another's.

A forecast has the dimensions ``time`` (initial), ``prediction_timedelta``, ``number``, ``level``,
``latitude``, ``longitude``; the truth has ``time`` (valid), ``level``, ``latitude``, ``longitude``.
One block of one variable is in memory at a time (see ``align``; of all variables that a budget
needs, for budgets); the rest stays on disk or in dask.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import xarray as xr

from gapzoo.core import Channels, GapzooError, Grid
from gapzoo.evaluators import EVALUATORS
from gapzoo.evaluators.align import ALIASES, LEAD, Block, Columns, Pairs
from gapzoo.evaluators.base import Evaluator
from gapzoo.evaluators.regions import region_weights
from gapzoo.evaluators.standard import (
    common_grid,
    land_on,
    level_kind,
    require_reference,
    shared,
    standard,
    with_own_levels,
)
from gapzoo.evaluators.tally import Tally

__all__ = ["ALIASES", "evaluate"]
COLUMN = "column"
"""Name of the scores of whole columns."""
SETTINGS = ("estimator", "order", "centred", "thresholds")
Options = Mapping[str, Mapping[str, Any]]
Progress = Callable[[int, int], None]


def evaluate(
    forecast: xr.Dataset,
    truth: xr.Dataset,
    metrics: Sequence[str] = ("rmse", "crps"),
    *,
    climatology: xr.Dataset | None = None,
    edges: xr.Dataset | None = None,
    index: xr.DataArray | None = None,
    mask: xr.Dataset | xr.DataArray | None = None,
    regions: Sequence[str] = ("global",),
    seasons: Sequence[str] | None = None,
    land: Any = None,
    options: Options | None = None,
    progress: Progress | None = None,
) -> xr.Dataset:
    """Score every variable that forecast and truth share.

    Args:
        forecast: (time, [prediction_timedelta], [number], [level], latitude, longitude).
        truth: (time, [level], latitude, longitude), with all valid times of the forecast.
        metrics: names in ``EVALUATORS``.
        climatology: for acc (and taken away first for modes): by ``dayofyear``, ``month`` (and
            ``hour``), by ``time``, as ``harmonic`` coefficients, or constant.
        edges: of categories, for rpss: the same with a dimension ``quantile`` (see
            ``climatologies``).
        index: (time,) series of a climate mode such as Nino3.4, for enso_*; a value holds until
            the next one.
        mask: True where the truth counts, in the truth's dimensions or fewer.
        regions: names for ``region_weights``; ``land`` is the land fraction they may need: a
            DataArray with its own coordinates, or (H, W) latitude and longitude ascending.
        seasons: of the valid times, such as ``all``, ``DJF``, ``JJAS``; None has no such axis.
        options: arguments of metrics by name, as ``{"crps": {"estimator": "biased"}}``.
        progress: called with the number of blocks done, and of all.

    Returns:
        Each variable with dimensions ([season], region, metric, prediction_timedelta, [level]);
        metrics with axes of their own or none for the lead as ``variable.metric``; budgets of
        whole columns as ``column``. Estimators and the like are in the attributes.

    Raises:
        GapzooError: where grids, levels, units or times do not match, nothing is shared, or a
            metric lacks what it needs.
    """
    needed = Needed.of(metrics, climatology, edges, index)
    forecast = standard(forecast, lead=True)
    tallies = tallied(
        forecast, truth, needed, mask=mask, regions=regions, seasons=seasons or ("all",),
        land=land, options=options, progress=progress)  # fmt: skip
    return scored(tallies, forecast, seasons)


def scored(
    tallies: Mapping[str, Mapping[str, Tally]], forecast: xr.Dataset, seasons: Sequence[str] | None
) -> xr.Dataset:
    """What ``evaluate`` returns, from the totals of the whole standard forecast."""
    found: dict[str, xr.DataArray] = {}
    for name, group in tallies.items():
        found |= _named(name, group, forecast)
    for name, array in found.items():
        if "level" in array.dims:  # a Dataset has NaN at the levels of others
            found[name] = array.assign_attrs(levels=array["level"].values.tolist())
    scores = xr.Dataset(found, attrs={"initial_times": forecast.sizes["time"], **settings(tallies)})
    return scores if seasons is not None else scores.squeeze("season", drop=True)


def tallied(
    forecast: xr.Dataset,
    truth: xr.Dataset,
    needed: Needed,
    *,
    mask: xr.Dataset | xr.DataArray | None = None,
    regions: Sequence[str] = ("global",),
    seasons: Sequence[str] = ("all",),
    land: Any = None,
    options: Options | None = None,
    progress: Progress | None = None,
    keep: bool = False,
) -> dict[str, dict[str, Tally]]:
    """Totals by variable and metric, once every block was read; arguments as ``evaluate``.

    Args:
        needed: the metrics.
        keep: keep the sums of every initial time, for significance.
    """
    forecast, truth = standard(forecast, lead=True), standard(truth)
    grid = common_grid(forecast, truth)
    weights = {name: region_weights(name, grid, land_on(grid, land)) for name in regions}
    work = _work(forecast, truth, needed, None if mask is None else standard(mask, whole=False))
    tallies = {
        name: {
            metric: Tally(_built(metric, grid, weights, pairs, options), seasons, pairs, keep)
            for metric in chosen
        }
        for name, (pairs, chosen) in work.items()
    }
    _run({name: pairs for name, (pairs, _) in work.items()}, tallies, progress)
    return tallies


@dataclass(frozen=True)
class Needed:
    """Metrics, and what of the rest they use."""

    metrics: list[str]
    climatology: xr.Dataset | None
    edges: xr.Dataset | None
    index: xr.DataArray | None

    @classmethod
    def of(cls, metrics: Sequence[str], climatology: Any, edges: Any, index: Any) -> Needed:
        """Refuse a metric that lacks what it needs; drop what none uses."""
        used = {"climatology": False, "edges": False, "index": False}
        given = {"climatology": climatology, "edges": edges, "index": index}
        for name in metrics:
            for what, must in _wants(EVALUATORS[name]).items():
                used[what] = True
                if must and given[what] is None:
                    raise GapzooError(f"metric '{name}' needs {what}=...; give it or drop {name}")
        kept = {k: v if used[k] else None for k, v in given.items()}
        fields = {k: v if v is None or k == "index" else standard(v) for k, v in kept.items()}
        return cls(list(dict.fromkeys(metrics)), **fields)

    def columns(self, wanted: bool) -> list[str]:
        """Metrics of whole columns, or of single variables."""
        return [n for n in self.metrics if EVALUATORS[n].needs_channels is wanted]  # type: ignore[attr-defined]


def _wants(metric: Any) -> dict[str, bool]:
    """What a metric uses, and whether it cannot do without."""
    found: dict[str, bool] = {}
    if metric.needs_climatology or metric.uses_climatology:
        name = "edges" if metric.climatology_axes else "climatology"
        found[name] = metric.needs_climatology
    if metric.series == "index":
        found["index"] = True
    return found


def _work(
    forecast: xr.Dataset, truth: xr.Dataset, needed: Needed, mask: Any
) -> dict[str, tuple[Pairs | Columns, list[str]]]:
    """What is scored, by name, with which metrics."""
    pairs: dict[str, Pairs] = {}
    given = {"climatology": needed.climatology, "edges": needed.edges, "mask": mask}
    for name in shared(forecast, truth):
        own = with_own_levels(forecast, name)
        fields = {what: _of(data, name) for what, data in given.items()}
        for what, field in fields.items():
            if field is not None:
                require_reference(f"{what} of {name}", field, own)
        pairs[name] = Pairs(own, truth[name], index=needed.index, **fields)
    found: dict[str, tuple[Pairs | Columns, list[str]]] = {}
    if single := needed.columns(False):
        found |= {name: (p, single) for name, p in pairs.items()}
    if whole := needed.columns(True):
        found[COLUMN] = (_columns(pairs, whole, level_kind(forecast, truth)), whole)
    return found


def _columns(pairs: Mapping[str, Pairs], metrics: Sequence[str], kind: str) -> Columns:
    """The variables that budgets need, as channels."""
    needs = {n for m in metrics for n in (*EVALUATORS[m].needs, "surface_pressure")}  # type: ignore[attr-defined]
    if lost := sorted(needs - pairs.keys()):
        raise GapzooError(
            f"{', '.join(metrics)} need {', '.join(lost)} in both forecast and truth; add them"
        )
    parts = {n: replace(p, climatology=None, edges=None, index=None)
             for n, p in pairs.items() if n in needs}  # fmt: skip
    labels = [
        name if level is None else f"{name}@{float(level):.12g}"
        for name, p in parts.items()
        for level in p.coords.get("level", [None])
    ]
    return Columns(tuple(parts.values()), Channels(labels, kind))


def _built(
    name: str,
    grid: Grid,
    weights: Mapping[str, np.ndarray],
    pairs: Pairs | Columns,
    options: Options | None,
) -> dict[str, Evaluator]:
    """The metric by region."""
    given: dict[str, Any] = {}
    takes: Sequence[str] = EVALUATORS[name].takes  # type: ignore[attr-defined]
    if "leads" in takes:
        given["leads"] = pairs.coords[LEAD] / np.timedelta64(1, "D")
    if "channels" in takes and isinstance(pairs, Columns):
        given["channels"] = pairs.channels
    given |= (options or {}).get(name, {})
    area = grid.area_weights
    return {
        region: EVALUATORS.build(name, area_weights=area, region=weight, **given)
        for region, weight in weights.items()
    }


def _run(
    work: Mapping[str, Pairs | Columns],
    tallies: Mapping[str, Mapping[str, Tally]],
    progress: Progress | None,
) -> None:
    """Load every block once and add it to all that want it."""
    blocks = [(name, block) for name, pairs in work.items() for block in pairs.blocks()]
    for done, (name, block) in enumerate(blocks, 1):
        _add(work[name], block, tallies[name])
        if progress is not None:
            progress(done, len(blocks))


def _add(pairs: Pairs | Columns, block: Block, tallies: Mapping[str, Tally]) -> None:
    """One block; it is let go before the next is read."""
    inputs = pairs.load(block)
    for tally in tallies.values():
        tally.add(inputs, block)


def _named(variable: str, tallies: Mapping[str, Tally], grid: Any) -> dict[str, xr.DataArray]:
    """Scores with (season, region, metric, *E) together, the others apart."""
    axes = {name: np.asarray(grid[name]) for name in ("latitude", "longitude")}
    scores = {name: tally.scores(axes) for name, tally in tallies.items()}
    apart = {n for n, t in tallies.items() if t.any.bins or t.any.along_lead}
    found = {f"{variable}.{name}": scores[name] for name in scores if name in apart}
    if plain := [name for name in scores if name not in apart]:
        joined = xr.concat([scores[n] for n in plain], xr.Variable("metric", plain))
        found[variable] = joined.transpose("season", "region", "metric", ...)
    return found


def settings(tallies: Mapping[str, Mapping[str, Tally]]) -> dict[str, Any]:
    """The choices that a score depends on, such as ``crps.estimator``."""
    every = {name: tally.any for group in tallies.values() for name, tally in group.items()}
    return {
        f"{name}.{key}": str(getattr(evaluator, key))
        for name, evaluator in every.items()
        for key in SETTINGS
        if hasattr(evaluator, key)
    }


def _of(data: Any, name: str) -> xr.DataArray | None:
    if not isinstance(data, xr.Dataset):
        return data
    if name not in data:
        raise GapzooError(f"climatology, edges or mask lack '{name}'; add it or drop the variable")
    return data[name]
