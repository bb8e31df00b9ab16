"""Opening data sets that xarray reads, without reading them: a store, a file, many files, a URL."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from gapzoo.core import GapzooError

EXTRAS = {"cfgrib": "grib", "gcsfs": "cloud", "fsspec": "cloud", "dask": "dask", "s3fs": "cloud"}
GRIB = (".grib", ".grb", ".grib2", ".grb2")


def open_dataset(
    path: str | Sequence[str],
    engine: str | None = None,
    options: dict[str, Any] | None = None,
    time: str | None = None,
) -> xr.Dataset:
    """Open a data set; nothing but coordinates is read.

    Args:
        path: a Zarr store, a NetCDF or GRIB file, a URL (``gs://...``), a pattern (``*.nc``) or a
            list. Files of the same variables follow each other in time, in any order and maybe
            overlapping; files of others are put beside them.
        engine: xarray's; found from the name where None.
        options: further arguments of ``xarray.open_dataset``, such as ``storage_options``.
        time: the dimension that files of the same variables follow each other in, where it is
            not called ``time``.

    Raises:
        GapzooError: where there is nothing, or a package to read it lacks.
    """
    paths = _paths(path)
    if len(paths) == 1:
        return _open(paths[0], engine, options or {})
    parts = [_open(p, engine, {"chunks": {}, **(options or {})}) for p in paths]
    kinds: dict[tuple[str, ...], list[xr.Dataset]] = {}
    for part in parts:
        kinds.setdefault(tuple(sorted(map(str, part.data_vars))), []).append(part)
    dim = time or "time"
    try:
        joined = [_follow(group, dim) for group in kinds.values()]
        return xr.merge(joined, join="exact", compat="equals")
    except (ValueError, xr.MergeError) as error:
        raise GapzooError(f"{paths[0]} and the other files do not fit: {_line(error)}") from None


def _paths(path: str | Sequence[str]) -> list[str]:
    wanted = [path] if isinstance(path, str | Path) else list(path)
    found: list[str] = []
    for one in map(str, wanted):
        pattern = "://" not in one and glob.has_magic(one)
        found += sorted(glob.glob(one)) if pattern else [one]
    if not found:
        raise GapzooError(f"no file is like {path}; check the path")
    return found


def _follow(group: list[xr.Dataset], dim: str) -> xr.Dataset:
    """Data sets of the same variables one after the other, by their first time."""
    if len(group) == 1:
        return group[0]
    if any(dim not in part.dims for part in group):
        group = [part if dim in part.dims else part.expand_dims(dim) for part in group]
    group = sorted(group, key=lambda part: np.atleast_1d(part[dim].values)[0])
    return xr.concat(
        group, dim, data_vars="minimal", coords="minimal", compat="override", join="exact"
    )


def _open(path: str, engine: str | None, options: dict[str, Any]) -> xr.Dataset:
    engine = engine or _engine(path)
    extra = {"indexpath": ""} if engine == "cfgrib" else {}  # writes nothing beside the file
    arguments: dict[str, Any] = {"chunks": None, "decode_timedelta": False, **options}
    if extra:
        arguments["backend_kwargs"] = {**extra, **arguments.get("backend_kwargs", {})}
    if "://" not in path and not Path(path).exists():
        raise GapzooError(f"nothing at {path}; check the path")
    try:
        return xr.open_dataset(path, engine=engine, **arguments)  # type: ignore[arg-type]
    except ImportError as error:
        raise GapzooError(f"{path} needs {_package(error)}") from None
    except (OSError, ValueError, TypeError, KeyError) as error:
        hint = _hint(engine, error)
        raise GapzooError(f"{path} cannot be opened: {_line(error)}{hint}") from None


def _engine(path: str) -> str | None:
    name = path.rstrip("/")
    if name.endswith(".zarr") or (Path(name) / "zarr.json").exists():
        return "zarr"
    return "cfgrib" if name.endswith(GRIB) else None


def _package(error: ImportError) -> str:
    text = error.name or str(error)
    known = next((name for name in EXTRAS if name in text), None)
    return f"{known}; pip install 'gapzoo[{EXTRAS[known]}]'" if known else text


def _hint(engine: str | None, error: Exception) -> str:
    if engine == "cfgrib" and "engine" in str(error):
        return "; GRIB needs pip install 'gapzoo[grib]'"
    if any(name in str(error) for name in ("gcsfs", "Protocol not known")):
        return "; cloud stores need pip install 'gapzoo[cloud]'"
    return ""


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
