"""gapzoo calibrate"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from gapzoo.commands import CONSOLE, command


def calibrate(args: argparse.Namespace) -> None:
    """Measure a prior's second moments, or a forecaster's errors in the modes of another prior."""
    from gapzoo import checkpoint, measure
    from gapzoo.core import GapzooError

    if checkpoint.load(args.checkpoint).kind == "prior":
        given = [n for n in ("correct", "stages", "steps") if getattr(args, n) is not None]
        if given:
            raise GapzooError(f"--{given[0]} is of a forecaster; leave it out")
        if args.prior:
            raise GapzooError(f"'{args.checkpoint}' is a prior itself; leave '{args.prior}' out")
        done = measure.measure_moments(args.checkpoint, args.output, args.archive, args.validate)
        CONSOLE.print(f"written to {done}")
        return
    if args.archive or args.validate:
        raise GapzooError("--archive and --validate are of a prior; a forecaster has its recipe's")
    if not args.prior:
        raise GapzooError(f"'{args.checkpoint}' is a forecaster; name the prior of its modes too")
    done = measure.recalibrate(
        args.checkpoint, args.prior, args.output, args.correct, args.stages, args.steps
    )
    CONSOLE.print(f"error statistics written to {done}")


def add(commands: Any) -> None:
    """Its arguments."""
    parser = command(commands, "calibrate", calibrate)
    parser.add_argument("checkpoint", help="of a prior or a forecaster")
    parser.add_argument(
        "prior", nargs="?", help="of a forecaster: checkpoint whose modes its errors are found in"
    )
    parser.add_argument("--archive", help="of a prior: the data (its recipe's)")
    parser.add_argument("--validate", nargs=2, metavar="DAY", help="first and last (its recipe's)")
    parser.add_argument(
        "--correct",
        nargs="*",
        type=int,
        metavar="HOURS",
        help="of a forecaster: leads whose known errors are taken off (its recipe's)",
    )
    parser.add_argument(
        "--stages", type=int, help="with --correct: equal parts of a lead (its recipe's)"
    )
    parser.add_argument(
        "--steps",
        type=int,
        help="with --correct: training steps of the network that follows each stage (its recipe's)",
    )
    parser.add_argument("--output", type=Path, help="checkpoint folder (its own)")
