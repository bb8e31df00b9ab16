"""gapzoo build-data"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from gapzoo.commands import CONSOLE, command


def build_data(args: argparse.Namespace) -> None:
    """Fill an archive from a source."""
    from gapzoo.data.build import Build

    arguments = {k: v for k, v in vars(args).items() if k in _SPEEDY and v is not None}
    output = args.output or Path(f"archives/speedy-t{args.truncation or 21}.zarr")
    archive = Build("speedy", arguments, output, tuple(args.train)).run(args.workers)
    CONSOLE.print(
        f"{output}: {len(archive.times)} steps of {len(archive.channels)} channels, "
        f"{archive.times[0]:%Y-%m-%d} to {archive.times[-1]:%Y-%m-%d}, hash {archive.hash}"
    )


_SPEEDY = ("truncation", "start", "end", "hours", "seed", "spin_up_days", "sst", "sst_offset")


def add(commands: Any) -> None:
    """Its arguments."""
    data = command(commands, "build-data", build_data)
    data.add_argument("--output", type=Path, help="store (archives/speedy-tTRUNCATION.zarr)")
    data.add_argument("--truncation", type=int, choices=(21, 31), help="21 (64x32) or 31 (96x48)")
    data.add_argument("--start", help="first day (1979-01-01)")
    data.add_argument("--end", help="last day (2013-12-31)")
    data.add_argument("--hours", type=int, help="time between steps (6)")
    data.add_argument("--seed", type=int, help="another seed is another realisation (0)")
    data.add_argument("--spin-up-days", type=int, help="thrown away at each start (90)")
    data.add_argument("--sst", choices=("observed", "climatology"))
    data.add_argument("--sst-offset", type=float, help="K added to the sea surface")
    data.add_argument("--train", nargs=2, default=("1979-01-01", "2003-12-31"))
    data.add_argument("--workers", type=int, help="processes, one pinned to a core")
