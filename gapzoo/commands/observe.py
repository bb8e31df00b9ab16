"""gapzoo observe"""

from __future__ import annotations

import argparse
import functools
from pathlib import Path
from typing import Any

from gapzoo.commands import CONSOLE, command, progress_bar

NETWORKS = (
    "random_columns, radiosondes, surface_stations, satellite_tracks or random_points "
    "(with between=false)"
)


def observe(args: argparse.Namespace) -> None:
    """Draw a table of simulated observations from an archive, to try assimilation out."""
    from gapzoo import recipe
    from gapzoo.core import GapzooError
    from gapzoo.data.archive import Archive
    from gapzoo.data.observations.nature import observe as draw

    archive = Archive(args.archive)
    archive.require_single()
    hours = int(archive.step.total_seconds() // 3600)
    every = args.every or hours
    if every < hours or every % hours:
        raise GapzooError(f"every {every} h; {args.archive} has a step every {hours} h")
    positions = archive.indices(args.start, args.end, every // hours)
    with progress_bar() as bar:
        task = bar.add_task("times", total=len(positions))
        step = functools.partial(bar.advance, task)
        options = recipe.options(args.options)
        names = args.variables.split(",") if args.variables else None
        table = draw(archive, positions, args.network, args.seed, names, step, **options)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    table.write(args.output)
    CONSOLE.print(f"{len(table)} observations of {len(positions)} times written to {args.output}")


def add(commands: Any) -> None:
    """Its arguments."""
    parser = command(commands, "observe", observe)
    parser.add_argument("options", nargs="*", help="key=value of the network, e.g. fraction=0.1")
    parser.add_argument("--archive", type=Path, default=Path("archives/speedy-t21.zarr"))
    parser.add_argument("--output", type=Path, default=Path("obs.parquet"))
    parser.add_argument("--start", required=True, help="first day or time")
    parser.add_argument("--end", required=True, help="last day or time")
    parser.add_argument("--every", type=int, default=0, help="hours; each step of the archive")
    parser.add_argument("--network", default="random_columns", help=NETWORKS)
    parser.add_argument("--variables", help="a,b,...; those on levels and surface pressure")
    parser.add_argument("--seed", type=int, default=0)
