"""Scores of any forecast in the layout of WeatherBench 2, ours or another model's.

A forecast has the dimensions ``time`` (initial), ``prediction_timedelta``, ``number``, ``level``,
``latitude``, ``longitude``; the truth has ``time`` (valid), ``level``, ``latitude``, ``longitude``.
One variable of one initial time is in memory at a time; the rest stays on disk or in dask.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from gapzoo.core import GapzooError, Grid
from gapzoo.evaluators import EVALUATORS
from gapzoo.evaluators.base import Evaluator
from gapzoo.evaluators.regions import region_weights

ALIASES = {
    "lat": "latitude",
    "lon": "longitude",
    "ensemble": "number",
    "realization": "number",
    "sample": "number",
    "init_time": "time",
    "lead_time": "prediction_timedelta",
}
"""Other names in use for the dimensions."""

Options = Mapping[str, Mapping[str, Any]]


def evaluate(
    forecast: xr.Dataset,
    truth: xr.Dataset,
    metrics: Sequence[str] = ("rmse", "crps"),
    *,
    climatology: xr.Dataset | None = None,
    mask: xr.Dataset | xr.DataArray | None = None,
    regions: Sequence[str] = ("global",),
    land: Any = None,
    options: Options | None = None,
) -> xr.Dataset:
    """Score every variable that forecast and truth share.

    Args:
        forecast: (time, [prediction_timedelta], [number], [level], latitude, longitude).
        truth: (time, [level], latitude, longitude), with all valid times of the forecast.
        metrics: names in ``EVALUATORS``.
        climatology: by ``dayofyear`` (and ``hour``), by ``time``, or constant; for acc, and with
            a dimension ``quantile`` (the edges of categories) for rpss.
        mask: True where the truth counts, in the truth's dimensions or fewer.
        regions: names for ``region_weights``; ``land`` is the land fraction they may need.
        options: arguments of metrics by name, as ``{"crps": {"estimator": "biased"}}``.

    Returns:
        Each variable with dimensions (region, metric, prediction_timedelta, [level]); metrics with
        bins of their own as ``variable.metric``. Estimators and the like are in the attributes.

    Raises:
        GapzooError: where grids, levels or times do not match, or nothing is shared.
    """
    forecast, truth = _standard(forecast, lead=True), _standard(truth)
    climatology = None if climatology is None else _standard(climatology)
    mask = None if mask is None else _standard(mask)
    grid = _common_grid(forecast, truth)
    weights = {name: region_weights(name, grid, land) for name in regions}
    found: dict[str, xr.DataArray] = {}
    attributes: dict[str, Any] = {"initial_times": forecast.sizes["time"]}
    for name in _shared(forecast, truth):
        pairs = _Pairs(forecast[name], truth[name], _of(climatology, name), _of(mask, name))
        built = {
            (region, metric): _build(metric, grid, weight, options)
            for region, weight in weights.items()
            for metric in metrics
        }
        for i in range(forecast.sizes["time"]):
            pair = pairs.load(i)
            for evaluator in built.values():
                evaluator.update(*pair)
        found |= _labelled(name, built, pairs)
        attributes |= _settings(built)
    return xr.Dataset(found, attrs=attributes)


@dataclass
class _Pairs:
    """Forecast and truth of one variable, an initial time at a time."""

    forecast: xr.DataArray
    truth: xr.DataArray
    climatology: xr.DataArray | None
    mask: xr.DataArray | None

    @property
    def kept(self) -> list[str]:
        """Names of the kept axes *E."""
        return ["prediction_timedelta", *(["level"] if "level" in self.forecast.dims else [])]

    def load(self, i: int) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
        """Forecast (1,M,*E,H,W), truth (1,*E,H,W), mask and climatology (or None)."""
        start = self.forecast.isel(time=i)
        valid = start["time"] + start["prediction_timedelta"]
        mask = None if self.mask is None else self._tensor(self._at(self.mask, valid)).bool()
        climate = None if self.climatology is None else self._at(self.climatology, valid)
        return (
            self._tensor(start, "number"),
            self._tensor(self._at(self.truth, valid)),
            mask,
            None if climate is None else self._tensor(climate, "quantile"),
        )

    def _at(self, field: xr.DataArray, valid: xr.DataArray) -> xr.DataArray:
        """The field at valid times: (prediction_timedelta, ...)."""
        if "time" in field.dims:
            field = field.isel(time=_positions(field, valid))
        if "dayofyear" in field.dims:
            field = field.sel(dayofyear=valid.dt.dayofyear)
        if "hour" in field.dims:
            field = field.sel(hour=valid.dt.hour, method="pad")
        if "level" in field.dims:
            field = field.sel(level=self.forecast["level"])
        return field.drop_vars("time", errors="ignore")

    def _tensor(self, field: xr.DataArray, extra: str | None = None) -> Tensor:
        """A field as float32 tensor in the order of the contract, absent axes of length one."""
        front = [extra] if extra in field.dims else []
        order = [*front, *self.kept, "latitude", "longitude"]
        missing = {d: self.forecast[d] for d in self.kept if d not in field.dims}
        field = field.expand_dims(missing) if missing else field
        values = field.transpose(*order).values.astype(np.float32, copy=False)
        tensor = torch.from_numpy(np.ascontiguousarray(values))[None]
        return tensor[:, None] if extra == "number" and not front else tensor


def _standard(data: Any, lead: bool = False) -> Any:
    """Names of WeatherBench 2, latitude ascending, a lead of zero where a forecast has none."""
    data = data.rename({a: b for a, b in ALIASES.items() if a in data.dims and b not in data.dims})
    for name in ("latitude", "longitude"):
        if name not in data.dims:
            raise GapzooError(f"no dimension '{name}' among {sorted(map(str, data.dims))}")
    if lead and "time" not in data.dims:
        data = data.expand_dims("time")
    if lead and "prediction_timedelta" not in data.dims:
        data = data.expand_dims(prediction_timedelta=[np.timedelta64(0, "ns")])
    return data.sortby("latitude")


def _common_grid(forecast: xr.Dataset, truth: xr.Dataset) -> Grid:
    axes = [(d["latitude"].values, d["longitude"].values) for d in (forecast, truth)]
    grids = [Grid(tuple(latitude), tuple(longitude)) for latitude, longitude in axes]
    if not grids[0].matches(grids[1]):
        raise GapzooError(
            f"forecast grid {grids[0].shape} and truth grid {grids[1].shape} differ; "
            "regrid one to the other"
        )
    return grids[0]


def _shared(forecast: xr.Dataset, truth: xr.Dataset) -> list[str]:
    names = [str(n) for n in forecast.data_vars if n in truth.data_vars]
    if not names:
        raise GapzooError(
            f"no variable in common: forecast {sorted(map(str, forecast.data_vars))}, "
            f"truth {sorted(map(str, truth.data_vars))}"
        )
    for name in names:
        if "level" in forecast[name].dims:
            lost = set(forecast["level"].values.tolist()) - set(truth["level"].values.tolist())
            if lost:
                raise GapzooError(f"{name}: the truth has no level {sorted(lost)}; select others")
    return names


def _positions(field: xr.DataArray, valid: xr.DataArray) -> xr.DataArray:
    at = field.indexes["time"].get_indexer(valid.values)
    if (at < 0).any():
        first = valid.values[at < 0][0]
        raise GapzooError(
            f"{field.name} has no time {first}, a valid time of the forecast; "
            "give a longer truth or fewer leads"
        )
    return xr.DataArray(at, dims=valid.dims)


def _of(data: Any, name: str) -> xr.DataArray | None:
    if not isinstance(data, xr.Dataset):
        return data
    if name not in data:
        raise GapzooError(f"climatology or mask lacks '{name}'; add it or drop the variable")
    return data[name]


def _build(name: str, grid: Grid, weight: np.ndarray, options: Options | None) -> Evaluator:
    given = dict((options or {}).get(name, {}))
    return EVALUATORS.build(name, area_weights=grid.area_weights, region=weight, **given)


def _settings(built: Mapping[tuple[str, str], Evaluator]) -> dict[str, Any]:
    """The choices that a score depends on, such as ``crps.estimator``."""
    return {
        f"{name}.{key}": str(getattr(evaluator, key))
        for (_, name), evaluator in built.items()
        for key in ("estimator", "order", "centred", "thresholds")
        if hasattr(evaluator, key)
    }


def _labelled(
    variable: str, built: Mapping[tuple[str, str], Evaluator], pairs: _Pairs
) -> dict[str, xr.DataArray]:
    """Results with names on their axes: (region, metric, *E), and (region, *E, bins) apart."""
    coords = {name: pairs.forecast[name].values for name in pairs.kept}
    plain: dict[tuple[str, str], np.ndarray] = {}
    binned: dict[str, list[xr.DataArray]] = {}
    regions = list(dict.fromkeys(region for region, _ in built))
    for (region, name), evaluator in built.items():
        shape = [*(len(c) for c in coords.values())]
        value = evaluator.compute().cpu().numpy()
        if not evaluator.bins:
            plain[region, name] = _fitted(name, value, shape)
            continue
        dims = [*pairs.kept, *evaluator.bins]
        value = value if value.ndim == len(dims) else value.reshape([1] * len(dims))
        binned.setdefault(name, []).append(xr.DataArray(value, coords, dims))
    found = {
        f"{variable}.{name}": xr.concat(parts, xr.Variable("region", regions))
        for name, parts in binned.items()
    }
    if plain:
        names = list(dict.fromkeys(name for _, name in plain))
        stacked = np.stack([np.stack([plain[r, n] for n in names]) for r in regions])
        at = {"region": regions, "metric": names, **coords}
        found[variable] = xr.DataArray(stacked, at, list(at))
    return found


def _fitted(name: str, value: np.ndarray, shape: list[int]) -> np.ndarray:
    if value.size != np.prod(shape):
        raise GapzooError(f"'{name}' gives no value for each lead and level; use its class instead")
    return value.reshape(shape)
