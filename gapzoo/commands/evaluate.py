"""gapzoo evaluate"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gapzoo.commands import CONSOLE, command, progress_bar


def evaluate(args: argparse.Namespace) -> None:
    """Score a forecast store against a truth: table here, NetCDF and JSON of all scores."""
    from gapzoo.data.workers import Workers
    from gapzoo.evaluators.saved import write
    from gapzoo.tasks import scoring

    forecast = _chosen(_opened(args.forecast), args)
    truth, climate, land = _truth(args.truth, forecast)
    references = _references(args, forecast, truth, climate)
    workers = Workers(args.workers, threads=True, scheduler=args.scheduler)
    with _bar("chunks") as (bar, task):
        scores = scoring.evaluate(
            workers,
            forecast,
            truth,
            args.metrics,
            **references,
            mask=_mask(truth) if args.missing else None,
            regions=args.regions,
            seasons=args.seasons,
            land=land,
            options=_options(args.options),
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    scores.attrs.update(_told(args, forecast))
    _show(scores)
    base = args.output or Path(str(args.forecast).rstrip("/")).with_suffix("")
    for path in write(scores, base):
        CONSOLE.print(f"scores written to {path}")
    if args.against:
        _compare(args, forecast, truth, {**references, "land": land}, base)


def _compare(
    args: argparse.Namespace, forecast: Any, truth: Any, given: dict[str, Any], base: Path
) -> None:
    """The same against another forecast: differences and their p-values."""
    from gapzoo.evaluators import EVALUATORS
    from gapzoo.evaluators.paired import compare_forecasts
    from gapzoo.evaluators.saved import write

    kinds: dict[str, Any] = {name: EVALUATORS[name] for name in args.metrics}
    plain = [n for n, k in kinds.items() if not (k.bins or k.along_lead or k.series)]
    given.pop("index", None)
    other = _chosen(_opened(args.against), args)
    with _bar("blocks of both") as (bar, task):
        found = compare_forecasts(
            forecast,
            other,
            truth,
            plain,
            **given,
            mask=_mask(truth) if args.missing else None,
            regions=args.regions,
            seasons=args.seasons or ["all"],
            options={k: v for k, v in _options(args.options).items() if k in plain},
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    found.attrs.update(_told(args, forecast), against=args.against)
    for what in ("difference", "p"):
        one = found.sel(compared=what, drop=True)
        _show(one, f"{what} to {args.against}, ")
    for path in write(found, base.with_name(f"{base.name}.against")):
        CONSOLE.print(f"comparison written to {path}")


def _opened(path: str) -> Any:
    """A store or file, its times to the microsecond (nanoseconds end in 2262).

    By its whole path: workers of a cluster may have been started elsewhere.
    """
    import xarray as xr

    from gapzoo.data.opening import open_dataset

    coder = xr.coders.CFDatetimeCoder(time_unit="us")
    return open_dataset(_whole(path), options={"decode_timedelta": True, "decode_times": coder})


def _whole(path: str) -> str:
    return path if "://" in path else str(Path(path).absolute())


def _chosen(forecast: Any, args: argparse.Namespace) -> Any:
    """The variables, initial times and members asked for."""
    from gapzoo.core import GapzooError, nearest

    for name in args.variables or ():
        if name not in forecast:
            hint = nearest(name, map(str, forecast.data_vars))
            raise GapzooError(f"{args.forecast} has no variable '{name}'; {hint}")
    if args.variables:
        forecast = forecast[args.variables]
    if args.period:
        inside = forecast.indexes["time"].slice_indexer(*_ends(args.period))
        forecast = forecast.isel(time=inside)
    if not forecast.sizes.get("time", 1):
        raise GapzooError(f"{args.forecast} has no initial time in {args.period}")
    return forecast.isel(number=slice(args.members)) if args.members else forecast


def _ends(period: str) -> tuple[str, str]:
    from gapzoo.core import GapzooError

    start, colon, end = period.partition(":")
    if not colon:
        raise GapzooError(f"period '{period}'; write START:END, as 1979:2003 or 2006-01-01:2006-06")
    return start, end


def _truth(path: str, forecast: Any) -> tuple[Any, Any, Any]:
    """Truth, its climatology if it brings one, and the land fraction if it is known."""
    from gapzoo.core import GapzooError
    from gapzoo.data.archive import Archive

    try:
        archive = Archive(_whole(path))
    except GapzooError:
        truth = _opened(path)
        land = next((d["land_sea_mask"] for d in (truth, forecast) if "land_sea_mask" in d), None)
        return truth, None, land
    return _archive(archive, forecast)


def _archive(archive: Any, forecast: Any) -> tuple[Any, Any, Any]:
    """An archive in the forecast's fields."""
    import xarray as xr

    from gapzoo.data.view import as_dataset, mean_dataset

    land, grid = None, archive.grid
    if "land_sea_mask" in archive.attributes["static_channels"]:
        axes = {"latitude": list(grid.latitude), "longitude": list(grid.longitude)}
        land = xr.DataArray(archive.static("land_sea_mask"), axes, list(axes))
    channels, make = None, None
    if forecast.attrs.get("level_kind", archive.channels.level_kind) != archive.channels.level_kind:
        channels, make = _made(archive, forecast)
    climate = mean_dataset(archive, channels, make) if "climatology" in archive.root else None
    return as_dataset(archive, channels, make), climate, land


def _made(archive: Any, forecast: Any) -> tuple[Any, Any]:
    """The forecast's fields on pressure levels, as far as the archive's states give them."""
    import torch

    from gapzoo.core import Channel, Channels, GapzooError
    from gapzoo.data.module import world_of
    from gapzoo.evaluators.standard import with_own_levels
    from gapzoo.tasks.diagnostics import Diagnostics

    world, labels = world_of(archive), []
    for name in map(str, forecast.data_vars):
        field = with_own_levels(forecast, name)
        levels = field["level"].values.tolist() if "level" in field.dims else [None]
        labels += [Channel(name, level).label for level in levels]
    makes = [label for label in labels if _possible(world, label)]
    if not makes:
        raise GapzooError(f"{archive.path} gives none of {', '.join(labels)}; give another truth")

    def make(states: Any, wanted: Any) -> Any:
        return Diagnostics(world, tuple(wanted))(torch.from_numpy(states)).numpy()

    return Channels(makes, "pressure"), make


def _possible(world: Any, label: str) -> bool:
    from gapzoo.core import GapzooError
    from gapzoo.tasks.diagnostics import Diagnostics

    try:
        return bool(Diagnostics(world, (label,)).labels)
    except GapzooError:
        return False


def _references(
    args: argparse.Namespace, forecast: Any, truth: Any, climate: Any
) -> dict[str, Any]:
    """Climatology, edges of categories and index, as far as metrics want them."""
    from gapzoo.core import GapzooError
    from gapzoo.evaluators import EVALUATORS, climatologies

    metrics: list[Any] = [EVALUATORS[name] for name in args.metrics]
    found: dict[str, Any] = {}
    if any(m.needs_climatology or m.uses_climatology for m in metrics):
        names = [n for n in truth.data_vars if n in forecast]
        found["climatology"] = _climatology(args.climatology, truth[names], climate)
        if any(m.climatology_axes for m in metrics):
            if not args.climatology or ":" not in args.climatology:
                raise GapzooError("rpss needs --climatology START:END, years of the truth")
            ends = _ends(args.climatology)
            with _bar("categories") as (bar, task):
                found["edges"] = climatologies.edges(
                    truth[names], found["climatology"], *ends,
                    progress=lambda n: bar.advance(task, n))  # fmt: skip
    if any(m.series == "index" for m in metrics):
        if "sea_surface_temperature" not in truth:
            raise GapzooError(f"{args.truth} has no sea_surface_temperature to make an index of")
        found["index"] = climatologies.index(truth["sea_surface_temperature"], args.index)
    return found


def _climatology(given: str | None, truth: Any, own: Any) -> Any:
    from gapzoo.evaluators import climatologies

    if given is None:
        return own
    if ":" not in given or Path(given).exists() or "://" in given:
        return _opened(given)
    with _bar("climatology") as (bar, task):
        return climatologies.mean(truth, *_ends(given), progress=lambda n: bar.advance(task, n))


def _mask(truth: Any) -> Any:
    """Where the truth is there; each time is read as it is needed."""
    import xarray as xr

    return xr.apply_ufunc(lambda x: x == x, truth.chunk({"time": 1}), dask="allowed")


def _options(given: list[str] | None) -> dict[str, dict[str, Any]]:
    """METRIC.ARGUMENT=VALUE as the options of ``gapzoo.evaluate``."""
    from gapzoo.core import GapzooError

    found: dict[str, dict[str, Any]] = {}
    for text in given or ():
        where, equals, value = text.partition("=")
        metric, dot, name = where.partition(".")
        if not (equals and dot):
            raise GapzooError(
                f"option '{text}'; write METRIC.ARGUMENT=VALUE, as brier.thresholds=0,1"
            )
        found.setdefault(metric, {})[name] = _value(value)
    return found


def _value(text: str) -> Any:
    """A number, true or false, a list of numbers with commas, or the text."""
    try:
        return json.loads(f"[{text}]" if "," in text else text)
    except json.JSONDecodeError:
        return text


def _told(args: argparse.Namespace, forecast: Any) -> dict[str, Any]:
    """What the scores depend on, for their attributes."""
    import gapzoo

    named = {"forecast": args.forecast, "truth": args.truth, "climatology": args.climatology}
    told = {k: str(v) for k, v in named.items() if v is not None}
    return {**told, "members": forecast.sizes.get("number", 1), "gapzoo": gapzoo.__version__}


def _show(scores: Any, what: str = "") -> None:
    """Tables of the scores that have no axis of their own, at some of the leads."""
    from gapzoo.report import scores as report

    for table in report.tables(scores, what, CONSOLE.width):
        CONSOLE.print(table)
    if apart := report.apart(scores):
        CONSOLE.print(f"in the files alone: {', '.join(apart)}")


@contextmanager
def _bar(what: str) -> Iterator[tuple[Any, Any]]:
    """A progress bar and its task."""
    with progress_bar() as bar:
        yield bar, bar.add_task(what, total=None)


def add(commands: Any) -> None:
    """Its arguments."""
    run = command(commands, "evaluate", evaluate)
    run.add_argument("forecast", help="store or file in the layout of WeatherBench 2")
    run.add_argument("truth", help="store or file of valid times, or an archive")
    run.add_argument("--metrics", nargs="+", default=["rmse", "bias", "crps"], metavar="NAME",
                     help="see 'gapzoo list' (rmse bias crps)")  # fmt: skip
    run.add_argument("--variables", nargs="+", metavar="NAME", help="of the forecast (all shared)")
    run.add_argument("--against", metavar="OTHER",
                     help="another forecast: differences and p-values too")  # fmt: skip
    run.add_argument("--period", metavar="START:END", help="of initial times")
    run.add_argument("--members", type=int, help="the first ones alone")
    run.add_argument("--regions", nargs="+", default=["global"], metavar="NAME",
                     help="bands, boxes, land, sea or box:SOUTH,NORTH,WEST,EAST")  # fmt: skip
    run.add_argument(
        "--seasons", nargs="+", metavar="NAME", help="of valid times: all DJF JJAS ..."
    )
    run.add_argument("--climatology", metavar="WHAT",
                     help="a store by day of the year, or START:END of the truth "
                     "(an archive's own)")  # fmt: skip
    run.add_argument("--index", default="nino34", metavar="REGION",
                     help="of the truth's SST, for enso_* (nino34)")  # fmt: skip
    run.add_argument("--missing", action="store_true", help="leave out what the truth lacks (NaN)")
    run.add_argument("--options", nargs="+", metavar="METRIC.ARGUMENT=VALUE",
                     help="as crps.estimator=biased brier.thresholds=280,290")  # fmt: skip
    run.add_argument("--workers", type=int, help="threads (one a core)")
    run.add_argument("--scheduler", metavar="ADDRESS",
                     help="dask cluster that sees these folders, for the scores")  # fmt: skip
    run.add_argument("--output", type=Path, help="FILE.scores.nc and .json (beside the forecast)")
