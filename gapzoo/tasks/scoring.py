"""``gapzoo.evaluate`` on many processors: threads of this process, or workers of a dask cluster.

An initial-time chunk of the forecast is scored on its own and gives totals; they are joined in the
order of the chunks, so that the scores are those of one process to the bit, whoever makes them and
in whatever order. A job is some chunks in a row; one that is lost with its worker is done again.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, Future, as_completed
from typing import Any

import numpy as np
import xarray as xr

from gapzoo.data.workers import Workers, computed_here
from gapzoo.evaluators.entry import Needed, scored, tallied
from gapzoo.evaluators.standard import standard
from gapzoo.evaluators.tally import Tally

JOBS = 64
"""Most jobs of one evaluation: what all of them share is sent so often."""
Tallies = dict[str, dict[str, Tally]]
"""By variable and metric."""
Totals = dict[str, dict[str, Any]]
"""The same of ``Tally.totals``."""


def evaluate(
    workers: Workers,
    forecast: xr.Dataset,
    truth: xr.Dataset,
    metrics: Sequence[str] = ("rmse", "crps"),
    *,
    climatology: xr.Dataset | None = None,
    edges: xr.Dataset | None = None,
    index: xr.DataArray | None = None,
    seasons: Sequence[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
    **given: Any,
) -> xr.Dataset:
    """Score every variable that forecast and truth share, as ``gapzoo.evaluate`` does.

    Args:
        workers: who does it. Data sets go to a cluster as they were opened: those that are read
            from files must lie where its workers find them.
        forecast: in the layout of WeatherBench 2.
        truth: by valid time.
        metrics: registered names.
        climatology, edges, index, seasons, given: as there.
        progress: called with the number of initial-time chunks done, and of all.

    Returns:
        What ``gapzoo.evaluate`` returns.

    Raises:
        GapzooError: as there.
    """
    needed = Needed.of(metrics, climatology, edges, index)
    forecast = standard(forecast, lead=True)
    options = {"seasons": seasons or ("all",), **given}
    parts = [forecast.isel(time=part) for part in chunks(forecast)]
    with workers.executor(min(len(parts), JOBS)) as pool:
        tallies = _tallies(pool, parts, (truth, needed, options), progress)
    return scored(tallies, forecast, seasons)


def chunks(forecast: xr.Dataset) -> list[slice]:
    """Initial times that lie together in every variable; one by one where nothing is chunked."""
    whole, cuts = forecast.sizes["time"], set[int]()
    for array in (a for a in forecast.data_vars.values() if "time" in a.dims):
        size = array.variable.encoding.get("preferred_chunks", {}).get("time", 1)
        sizes = array.variable.chunksizes.get("time") or (size,) * -(-whole // max(size, 1))
        own = {min(int(edge), whole) for edge in np.cumsum([0, *sizes])}
        cuts = cuts & own if cuts else own
    return [slice(a, b) for a, b in itertools.pairwise(sorted(cuts or {0, whole}))]


def _tallies(
    pool: Executor,
    parts: Sequence[xr.Dataset],
    shared: tuple[Any, ...],
    progress: Callable[[int, int], None] | None,
) -> Tallies:
    """All parts together; the first gives the tallies, the others are joined to it."""
    jobs: dict[Future, int] = {pool.submit(_first, parts[0], *shared): 1}
    for rows in np.array_split(np.arange(1, len(parts)), max(1, min(len(parts), JOBS) - 1)):
        if len(rows):
            jobs[pool.submit(_totals, [parts[n] for n in rows], *shared)] = len(rows)
    try:
        done = 0
        for job in as_completed(jobs):
            job.result()
            done += jobs[job]
            if progress is not None:
                progress(done, len(parts))
    finally:
        for job in jobs:
            job.cancel()
    first, *others = (job.result() for job in jobs)
    for totals in itertools.chain.from_iterable(others):
        _join(first, totals)
    return first


def _first(part: xr.Dataset, truth: xr.Dataset, needed: Needed, given: dict[str, Any]) -> Tallies:
    with computed_here:
        return tallied(part, truth, needed, **given)


def _totals(
    parts: Sequence[xr.Dataset], truth: xr.Dataset, needed: Needed, given: dict[str, Any]
) -> list[Totals]:
    """Totals alone are sent back: a tally knows its regions, which are maps."""
    made = (_first(part, truth, needed, given) for part in parts)
    return [{name: {m: t.totals for m, t in group.items()} for name, group in tallies.items()}
            for tallies in made]  # fmt: skip


def _join(tallies: Mapping[str, Mapping[str, Tally]], totals: Totals) -> None:
    """Add the totals of a chunk, in place."""
    for name, group in totals.items():
        for metric, found in group.items():
            tally = tallies[name][metric]
            for key, sums in found.items():
                own = tally.totals[key]
                for statistic, value in sums.items():
                    own[statistic] = tally.any.joined(statistic, own[statistic], value)
