"""References for scores, made from a truth: the mean of the season, edges of categories, indices.

    mean     x(d) = a_0 + sum_k a_k cos(k w d) + b_k sin(k w d), least squares over the period
             (as gapzoo.data.statistics; K = 4)
    edges    e_q(d) = x(d) + the q-quantile of x - x(d) over the calendar month, linear in between
    index    area mean of x - x(d) over a box such as Nino3.4, and its monthly mean

What is read at a time is some steps of one variable; for edges, one calendar month of all years.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from gapzoo.core import GapzooError, Grid
from gapzoo.core.climatology import harmonics
from gapzoo.evaluators.align import at_times
from gapzoo.evaluators.regions import region_weights
from gapzoo.evaluators.standard import require_reference, standard, with_own_levels

HARMONICS = 4
TERCILES = (1 / 3, 2 / 3)
DAYS = pd.date_range("2000-01-01", "2000-12-31")
"""A leap year."""
READ_BYTES = 2**27
Progress = Callable[[int], None]


def mean(
    truth: xr.Dataset,
    start: str | None = None,
    end: str | None = None,
    count: int = HARMONICS,
    progress: Progress | None = None,
) -> xr.Dataset:
    """Coefficients (harmonic, [level], latitude, longitude) of every variable's mean.

    Args:
        truth: (time, [level], latitude, longitude).
        start: first day or year of the period, inclusive; ``end`` the last.
        count: number K of harmonics.
        progress: called with the number of steps read, of each variable.

    Raises:
        GapzooError: where the period holds too few steps to determine them.
    """
    truth = _period(standard(truth), start, end)
    if truth.sizes["time"] < 2 * count + 1:
        raise GapzooError(
            f"{truth.sizes['time']} steps from {start} to {end}; a climatology of {count} "
            f"harmonics needs {2 * count + 1} over the year; give a longer period"
        )
    found = {name: _fit(field, count, progress) for name, field in _fields(truth).items()}
    return xr.Dataset(found, attrs=truth.attrs)


def edges(
    truth: xr.Dataset,
    climatology: xr.Dataset,
    start: str | None = None,
    end: str | None = None,
    probabilities: Sequence[float] = TERCILES,
    progress: Progress | None = None,
) -> xr.Dataset:
    """Edges of categories (quantile, dayofyear, [level], latitude, longitude), for rpss.

    Args:
        truth: (time, [level], latitude, longitude), with steps in all months of the period.
        climatology: from ``mean``, or any that ``gapzoo.evaluate`` takes.
        start: first day or year of the period, inclusive; ``end`` the last.
        probabilities: ascending; k/(K+1) for K edges of equally likely categories.
        progress: called with the number of steps read, of each variable.
    """
    truth, climatology = _period(standard(truth), start, end), standard(climatology)
    found = {}
    for name, field in _fields(truth).items():
        months = [_quantiles(field, climatology[name], m, probabilities, progress)
                  for m in range(1, 13)]  # fmt: skip
        departures = xr.concat(months, xr.Variable("month", range(1, 13)))
        by_day = _by_day(departures) + _days(climatology[name])
        found[name] = by_day.transpose("quantile", "dayofyear", ...).astype(np.float32)
    return xr.Dataset(found, attrs=truth.attrs)


def index(
    field: xr.DataArray,
    region: str = "nino34",
    start: str | None = None,
    end: str | None = None,
    monthly: bool = True,
) -> xr.DataArray:
    """(time,) anomaly of the area mean over a region, such as the SST's over Nino3.4.

    Args:
        field: (time, latitude, longitude); NaN (land) is left out.
        region: name for ``region_weights``.
        start: period of the climatology that is taken away, as in ``mean``; all where None.
        monthly: give monthly means, at the first of the month.
    """
    field = standard(field)
    grid = Grid(tuple(field["latitude"].values), tuple(field["longitude"].values))
    weight = xr.DataArray(region_weights(region, grid), dims=("latitude", "longitude"))
    weight = weight * xr.DataArray(grid.area_weights, dims="latitude")
    parts = [f.weighted(weight).mean(("latitude", "longitude")).values for f in _steps(field)]
    series = xr.DataArray(np.concatenate(parts), {"time": field["time"].values}, name=region)
    kept = series.sel(time=slice(start, end))
    basis = harmonics(pd.DatetimeIndex(kept["time"].values), HARMONICS)
    known = np.isfinite(kept.values)
    _require_determined(basis[known].T @ basis[known], region, HARMONICS)
    beta = np.linalg.lstsq(basis[known], kept.values[known], rcond=None)[0]
    anomaly = series - harmonics(pd.DatetimeIndex(series["time"].values), HARMONICS) @ beta
    return anomaly.resample(time="MS").mean() if monthly else anomaly


def _period(truth: xr.Dataset, start: str | None, end: str | None) -> xr.Dataset:
    times = truth.indexes["time"]
    inside = times.slice_indexer(start, end)
    found = truth.isel(time=inside)
    if not found.sizes["time"]:
        raise GapzooError(
            f"the truth has no step from {start} to {end}; it covers {times[0]} to {times[-1]}"
        )
    return found


def _fields(truth: xr.Dataset) -> dict[str, xr.DataArray]:
    return {str(n): with_own_levels(truth, str(n)) for n in truth.data_vars
            if {"time", "latitude"} <= set(truth[n].dims)}  # fmt: skip


def _steps(field: xr.DataArray) -> Iterator[xr.DataArray]:
    """Some time steps after others, as many as may be read at a time."""
    size = max(1, READ_BYTES // max(1, 4 * field.size // max(1, field.sizes["time"])))
    for first in range(0, field.sizes["time"], size):
        yield field.isel(time=slice(first, first + size)).transpose("time", ...).load()


def _fit(field: xr.DataArray, count: int, progress: Progress | None) -> xr.DataArray:
    """Least squares of one variable on the harmonics, from sums over time."""
    normal = np.zeros((2 * count + 1,) * 2)
    right: np.ndarray | float = 0.0
    for part in _steps(field):
        basis = harmonics(pd.DatetimeIndex(part["time"].values), count)
        normal += basis.T @ basis
        right = right + np.tensordot(basis.T, part.values.astype(np.float64), 1)
        if progress is not None:
            progress(len(basis))
    _require_determined(normal, field.name, count)
    solved = np.tensordot(np.linalg.inv(normal), right, 1)
    dims = ("harmonic", *(d for d in part.dims if d != "time"))
    coords = {d: part[d] for d in dims[1:]}
    return xr.DataArray(solved.astype(np.float32), coords, dims, attrs=field.attrs)


def _require_determined(normal: np.ndarray, name: Any, count: int) -> None:
    """Refuse a fit of harmonics whose normal matrix is as good as singular."""
    if np.linalg.cond(normal) > 1e10:
        raise GapzooError(
            f"{name}: the period's days do not determine {count} harmonics of the year; "
            "give whole years"
        )


def _quantiles(
    field: xr.DataArray,
    climatology: xr.DataArray,
    month: int,
    probabilities: Sequence[float],
    progress: Progress | None,
) -> xr.DataArray:
    """Quantiles of one calendar month's departures, (quantile, ...)."""
    part = field.isel(time=np.flatnonzero(field["time"].dt.month.values == month))
    times = part["time"].values
    if len(times) < 2:
        raise GapzooError(f"{field.name}: fewer than two steps of month {month}; take more years")
    require_reference(f"climatology of {field.name}", climatology, part)
    if "level" in part.dims and "level" in climatology.dims:
        climatology = climatology.sel(level=part["level"].values, method="nearest")
    values = part.drop_vars("time") - at_times(climatology, times).drop_vars(
        "time", errors="ignore"
    )
    values = values.transpose("time", ...).load()
    found = np.quantile(values.values, probabilities, axis=0).astype(np.float32)
    if progress is not None:
        progress(len(times))
    dims = ("quantile", *values.dims[1:])
    return xr.DataArray(found, {"quantile": list(probabilities),
                                **{d: part[d] for d in dims[1:]}}, dims)  # fmt: skip


def _by_day(monthly: xr.DataArray) -> xr.DataArray:
    """From the middles of the months to the days of a year, linear in between and periodic."""
    middles = np.array([DAYS[DAYS.month == m].dayofyear.to_numpy().mean() for m in range(1, 13)])
    padded = xr.concat([monthly[-1:], monthly, monthly[:1]], "month")
    padded = padded.assign_coords(month=[middles[-1] - len(DAYS), *middles, middles[0] + len(DAYS)])
    days = padded.interp(month=np.arange(1, len(DAYS) + 1, dtype=float))
    return days.rename(month="dayofyear").assign_coords(dayofyear=range(1, len(DAYS) + 1))


def _days(climatology: xr.DataArray) -> xr.DataArray:
    """A climatology by day of the year."""
    if "time" in climatology.dims:
        raise GapzooError("edges need a climatology by calendar or harmonics, not by time")
    days = at_times(climatology, DAYS.values).drop_vars(("time", "dayofyear"), errors="ignore")
    if "time" not in days.dims:
        return days
    return days.rename(time="dayofyear").assign_coords(dayofyear=range(1, len(DAYS) + 1))
