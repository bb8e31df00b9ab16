"""How a climate answers a change of what drives it: a run less its control, beside another model's.

With d_y the difference of yearly means of the run and its control, of Y years that both have (the
first ones left out while the run adjusts),

    d = mean of d_y,      its standard error = std of d_y / Y^1/2

and with r the same of a reference model under the same change, area means <.>,

    amplitude = <d r> / <r r>,     pattern = <d r> / (<d d> <r r>)^1/2,
    error = (<(d - r)^2> / <r r>)^1/2,     noise = (<e^2> / <r r>)^1/2

where e^2 is the sum of both squared standard errors: an error of about the noise is none. Records
are those of ``gapzoo simulate``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from gapzoo.core import GapzooError, Grid

YEAR = 12
"""Months."""


@dataclass(frozen=True)
class Change:
    """Differences of yearly means.

    Args:
        fields: by label, (Y, H, W) in SI units.
        units: by label.
        grid: of the fields.
        years: (Y,).
    """

    fields: dict[str, np.ndarray]
    units: dict[str, str]
    grid: Grid
    years: np.ndarray

    @cached_property
    def mean(self) -> dict[str, np.ndarray]:
        """(H, W) by label."""
        return {label: years.mean(0) for label, years in self.fields.items()}

    @cached_property
    def error(self) -> dict[str, np.ndarray]:
        """(H, W) standard errors of the means by label; NaN of a single year."""
        if len(self.years) < 2:
            return {label: np.full_like(one[0], np.nan) for label, one in self.fields.items()}
        count = len(self.years)
        return {label: one.std(0, ddof=1) / count**0.5 for label, one in self.fields.items()}

    def area_mean(self, field: np.ndarray) -> float:
        """Of (H, W)."""
        weight = np.broadcast_to(self.grid.area_weights[:, None], field.shape)
        return float((field * weight).sum() / weight.sum())


def change(run: Path, control: Path, skip: int = 1) -> Change:
    """The change that a run is, from its control.

    Args:
        run, control: folders of ``gapzoo simulate``.
        skip: years from the first that both have, which are left out.

    Raises:
        GapzooError: where a folder has no run, grids differ, no field is in both, or no whole year
            is left.
    """
    both = [_months(Path(folder)) for folder in (run, control)]
    grids = [Grid(tuple(d["latitude"].values), tuple(d["longitude"].values)) for d in both]
    if not grids[0].matches(grids[1]):
        raise GapzooError(f"{run} has a grid of {grids[0].shape}, {control} of {grids[1].shape}")
    months = pd.DatetimeIndex(np.intersect1d(both[0]["time"].values, both[1]["time"].values))
    years, counts = np.unique(months.year, return_counts=True)
    kept = years[counts == YEAR][skip:]
    if not len(kept):
        raise GapzooError(
            f"{run} and {control} have {len(months)} months in common; after {skip} years no "
            "whole one is left, simulate for longer or skip fewer"
        )
    when = months[months.year.isin(kept)]
    first, second = (_fields(data.sel(time=when)) for data in both)
    yearly = {
        label: (first[label][0] - second[label][0]).reshape(-1, YEAR, *grids[0].shape).mean(1)
        for label in _shared(first, second, f"{run} and {control}")
    }
    return Change(yearly, {label: first[label][1] for label in yearly}, grids[0], kept)


def scores(run: Change, reference: Change) -> dict[str, dict[str, float]]:
    """By field that both have: both means and the scores of the module's head.

    Raises:
        GapzooError: where grids differ, or no field is in both.
    """
    if not run.grid.matches(reference.grid):
        raise GapzooError(f"a grid of {run.grid.shape} and one of {reference.grid.shape}")
    labels = _shared(run.fields, reference.fields, "run and reference")
    return {label: _score(run, reference, label) for label in labels}


def _shared(first: Mapping[str, Any], second: Mapping[str, Any], names: str) -> list[str]:
    labels = [label for label in first if label in second]
    if not labels:
        raise GapzooError(f"{names} have no field in common: {', '.join((*first, *second))}")
    return labels


def _score(run: Change, reference: Change, label: str) -> dict[str, float]:
    d, r, mean = run.mean[label], reference.mean[label], run.area_mean
    square = max(mean(r * r), 1e-300)
    noise = mean(run.error[label] ** 2 + reference.error[label] ** 2)
    return {
        "mean": mean(d),
        "reference_mean": mean(r),
        "amplitude": mean(d * r) / square,
        "pattern": mean(d * r) / max(mean(d * d) * square, 1e-300) ** 0.5,
        "error": (mean((d - r) ** 2) / square) ** 0.5,
        "noise": (noise / square) ** 0.5,
    }


def _months(folder: Path) -> xr.Dataset:
    """Monthly means of the whole months that are there."""
    path = folder / "record.npz"
    if not path.exists():
        raise GapzooError(f"{folder} holds no whole month of a run of 'gapzoo simulate'")
    with np.load(path, allow_pickle=False) as file:
        done = int(file["done"])
    coder = xr.coders.CFDatetimeCoder(time_unit="us")
    data = xr.open_zarr(folder / "monthly.zarr", chunks=None, decode_times=coder)
    return data.isel(time=slice(done))


def _fields(data: xr.Dataset) -> dict[str, tuple[np.ndarray, str]]:
    """Means over members (N, H, W) and units by label; levels that hold nothing are left out."""
    found = {}
    for name, array in data.data_vars.items():
        if not {"time", "latitude", "longitude"} <= set(array.dims):
            continue
        array = array.mean("number") if "number" in array.dims else array
        levels = array["level"].values if "level" in array.dims else [None]
        for level in levels:
            one = array if level is None else array.sel(level=level)
            values = one.transpose("time", "latitude", "longitude").values.astype(np.float64)
            if np.isfinite(values).all():
                label = str(name) if level is None else f"{name}@{level:g}"
                found[label] = (values, str(data[name].attrs.get("units", "")))
    return found
