"""gapzoo build-data"""

from __future__ import annotations

import argparse
import inspect
from pathlib import Path
from typing import Any

from gapzoo.commands import CONSOLE, command
from gapzoo.core import GapzooError, nearest

KEYS = ("name", "source", "output", "train")
"""Of a data recipe; every other key is an argument of its source."""
SPEEDY = ("truncation", "start", "end", "hours", "seed", "spin_up_days", "sst", "sst_offset")


def build_data(args: argparse.Namespace) -> None:
    """Fill an archive from a source, by a recipe or by the flags of the simulator."""
    build = _by_recipe(args) if args.recipe else _by_flags(args)
    if args.together and (args.workers or args.scheduler):
        raise GapzooError("--together is one process's work; leave --workers and --scheduler out")
    archive = build.run(args.workers, scheduler=args.scheduler, together=args.together)
    CONSOLE.print(
        f"{build.output}: {len(archive.times)} steps of {len(archive.channels)} channels, "
        f"{archive.times[0]:%Y-%m-%d} to {archive.times[-1]:%Y-%m-%d}, hash {archive.hash}"
    )


def _by_flags(args: argparse.Namespace) -> Any:
    from gapzoo.data.build import Build

    arguments = {k: v for k, v in vars(args).items() if k in SPEEDY and v is not None}
    output = args.output or Path(f"archives/speedy-t{args.truncation or 21}.zarr")
    train = args.train or ("1979-01-01", "2003-12-31")
    return Build("speedy", arguments, _shared(args, output), (train[0], train[1]))


def _by_recipe(args: argparse.Namespace) -> Any:
    from gapzoo import recipe
    from gapzoo.data.build import Build

    flags = [f"{k}={v}" for k, v in vars(args).items() if k in SPEEDY and v is not None]
    values = recipe.read(args.recipe, [*args.changes, *flags])
    where = str(args.recipe)
    source = values.get("source")
    if source is None:
        raise GapzooError(f"{where} names no source; add 'source: weatherbench2', 'cf' or 'speedy'")
    _refuse_unknown(source, values, where)
    train = _train(args.train or values.get("train"), where)
    name = values.get("name") or args.recipe.stem
    output = args.output or Path(values.get("output") or f"archives/{name}.zarr")
    arguments = {k: _absolute(k, v) for k, v in values.items() if k not in KEYS}
    # A year alone is read as a number, which pandas would take for nanoseconds since 1970.
    arguments |= {k: str(arguments[k]) for k in ("start", "end") if arguments.get(k) is not None}
    if "world" in _arguments(source) and "name" in values:
        arguments.setdefault("world", name)
    return Build(source, arguments, _shared(args, output), train)


def _train(period: Any, where: str) -> tuple[str, str] | None:
    """The period of the statistics; None for ``none``."""
    if period == "none":
        return None
    if not isinstance(period, list) or len(period) != 2:
        raise GapzooError(
            f"{where}: 'train' needs a first and a last day, or 'none' for no statistics"
        )
    return str(period[0]), str(period[1])


def _shared(args: argparse.Namespace, output: Path) -> Path:
    """A path that workers of a cluster find, wherever they were started."""
    return output.absolute() if args.scheduler else output


def _arguments(source: str) -> list[str]:
    """Names of the arguments that a source takes, its base's where it passes others on."""
    from gapzoo.data import SOURCES

    found: list[str] = []
    entry: Any = SOURCES[source]
    for one in inspect.getmro(entry):
        parameters = inspect.signature(one).parameters.values()
        found += [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
    return found


def _refuse_unknown(source: str, values: dict[str, Any], where: str) -> None:
    known = [*KEYS, *_arguments(source)]
    for key in values:
        if key not in known:
            raise GapzooError(f"{where}: unknown key '{key}'; {nearest(key, known)}")


def _absolute(key: str, value: Any) -> Any:
    """Paths that a worker elsewhere finds too; those in a recipe are from the folder here."""
    if isinstance(value, dict):
        return {k: _absolute(k, v) for k, v in value.items()}
    if key == "path" and isinstance(value, list):
        return [_absolute(key, v) for v in value]
    if key == "path" and isinstance(value, str) and "://" not in value:
        return str(Path(value).absolute())
    return value


def add(commands: Any) -> None:
    """Its arguments."""
    data = command(commands, "build-data", build_data)
    data.add_argument("recipe", nargs="?", type=Path, help="such as recipes/data/era5-64x32.yaml")
    data.add_argument("changes", nargs="*", help="key=value")
    data.add_argument("--output", type=Path, help="store (archives/NAME.zarr)")
    data.add_argument("--truncation", type=int, choices=(21, 31), help="21 (64x32) or 31 (96x48)")
    data.add_argument("--start", help="first day (1979-01-01)")
    data.add_argument("--end", help="last day (2013-12-31)")
    data.add_argument("--hours", type=int, help="time between steps (6)")
    data.add_argument("--seed", type=int, help="another seed is another realisation (0)")
    data.add_argument("--spin-up-days", type=int, help="thrown away at each start (180)")
    data.add_argument("--sst", choices=("observed", "climatology"))
    data.add_argument("--sst-offset", type=float, help="K added to the sea surface")
    data.add_argument("--train", nargs=2, help="period of the statistics (1979-01-01 2003-12-31)")
    data.add_argument("--workers", type=int, help="processes, one pinned to a core, or threads")
    data.add_argument(
        "--together",
        action="store_true",
        help="SPEEDY: all segments in one batch, on a GPU where JAX finds one (pip install "
        "'jax[cuda13]', or cuda12, of jax's own version)",
    )
    data.add_argument("--scheduler", metavar="ADDRESS", help="dask cluster that sees these folders")
