"""Scores on disk, as NetCDF and as JSON, and as the rows of a table."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from gapzoo.evaluators.align import LEAD


def write(scores: xr.Dataset, base: Path) -> list[Path]:
    """Write ``base``.scores.nc and .json, each put in its place whole.

    Args:
        scores: from ``gapzoo.evaluate``.
        base: path without an ending.

    Returns:
        Both paths.
    """
    base.parent.mkdir(parents=True, exist_ok=True)
    paths = [base.with_name(f"{base.name}.scores{end}") for end in (".nc", ".json")]
    parts = [path.with_name(f"{path.name}.part") for path in paths]
    plain = _in_hours(scores)
    plain.to_netcdf(parts[0])
    parts[1].write_text(json.dumps(as_json(plain), indent=1, allow_nan=False) + "\n")
    for part, path in zip(parts, paths, strict=True):
        part.replace(path)
    return paths


def as_json(scores: xr.Dataset) -> dict[str, Any]:
    """Attributes, coordinates, and dimensions and values by name; null where there is no number."""
    return {
        "attributes": dict(scores.attrs),
        "coordinates": {str(n): _listed(c.values) for n, c in scores.coords.items()},
        "scores": {
            str(n): {"dimensions": list(a.dims), "values": _listed(a.values)}
            for n, a in scores.data_vars.items()
        },
    }


def rows(plain: Mapping[Any, xr.DataArray], leads: np.ndarray) -> Iterator[list[str]]:
    """Cells of a table: field, metric, region, season where there is one, and the scores.

    Args:
        plain: arrays by name with dimensions region, metric and lead.
        leads: positions of the leads wanted.
    """
    for name, array in plain.items():
        front = [d for d in ("level", "metric", "region", "season") if d in array.dims]
        if "level" in front and "levels" in array.attrs:
            array = array.sel(level=np.atleast_1d(array.attrs["levels"]))
        stacked = array.isel({LEAD: leads}).stack(row=front)
        for i in range(stacked.sizes["row"]):
            one = stacked.isel(row=i)
            level = f"@{float(one['level']):g}" if "level" in front else ""
            labels = [str(one[d].item()) for d in front if d != "level"]
            yield [f"{name}{level}", *labels, *(f"{v:.4g}" for v in one.values)]


def _in_hours(scores: xr.Dataset) -> xr.Dataset:
    hours = scores[LEAD].values / np.timedelta64(1, "h")
    return scores.assign_coords({LEAD: (LEAD, hours, {"units": "hours", "long_name": "lead time"})})


def _listed(values: Any) -> Any:
    values = np.asarray(values)
    if values.dtype.kind != "f":
        return values.tolist()
    found: Any = np.where(np.isfinite(values), values.astype(object), None)
    return found.tolist()
