"""gapzoo compare"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from gapzoo.commands import CONSOLE, command


def compare(args: argparse.Namespace) -> None:
    """Compare priors on an archive: loss by noise level, size, speed, experts, analyses."""
    from gapzoo import checkpoint
    from gapzoo.compare import Comparison, markdown

    what = Comparison(
        archive=args.archive,
        period=(args.period[0], args.period[1]),
        states=args.states,
        seed=args.seed,
        board=args.board,
    )
    priors = [checkpoint.load(name) for name in args.checkpoints]
    columns = what.columns(priors)
    if args.json:
        part = args.json.with_suffix(".part")
        part.write_text(json.dumps(columns, indent=1) + "\n")
        part.replace(args.json)
    CONSOLE.print(markdown(columns), markup=False, highlight=False, soft_wrap=True)


def add(commands: Any) -> None:
    """Its arguments."""
    run = command(commands, "compare", compare)
    run.add_argument("checkpoints", nargs="+", help="priors; the first one's units are used")
    run.add_argument("--archive", type=Path, default=Path("archives/speedy-t21.zarr"))
    run.add_argument(
        "--period",
        nargs=2,
        metavar="DAY",
        default=("2004-01-01", "2005-12-31"),
        help="first and last (2004-01-01 2005-12-31)",
    )
    run.add_argument("--states", type=int, default=96, help="evenly spread over the period (96)")
    run.add_argument("--seed", type=int, default=0, help="of the noise (0)")
    run.add_argument("--board", type=Path, default=Path("evaluation/leaderboard"))
    run.add_argument("--json", type=Path, metavar="FILE", help="write the table there too")
