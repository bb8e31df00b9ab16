"""NetCDF: one dimension ``observation``, the columns as variables, through xarray."""

from __future__ import annotations

from pathlib import Path

import xarray as xr

from gapzoo.core import GapzooError
from gapzoo.data.observations.form import Observations
from gapzoo.data.observations.readers import READERS, WRITERS, kind_of_levels


@READERS.register(".nc")
def read_netcdf(path: Path, level_kind: str | None = None) -> Observations:
    """Read a table; ``level_kind`` overrides what the file says."""
    try:
        with xr.open_dataset(path) as data:
            data = data.load()
    except ValueError as error:
        raise GapzooError(f"no NetCDF file that xarray can open: {error}") from error
    kind = kind_of_levels(data.get("level"), data.attrs.get("level_kind"), level_kind)
    return Observations.from_xarray(data.assign_attrs(level_kind=kind))


@WRITERS.register(".nc")
def write_netcdf(observations: Observations, path: Path) -> None:
    """Write a table, the kind of its levels with it."""
    observations.to_xarray().to_netcdf(path)
