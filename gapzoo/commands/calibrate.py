"""gapzoo calibrate"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from gapzoo.commands import CONSOLE, command


def calibrate(args: argparse.Namespace) -> None:
    """Measure a prior's second moments, or a forecaster's errors in the modes of another prior."""
    from gapzoo import checkpoint, fit
    from gapzoo.core import GapzooError

    if checkpoint.load(args.checkpoint).kind == "prior":
        if args.prior:
            raise GapzooError(f"'{args.checkpoint}' is a prior itself; leave '{args.prior}' out")
        CONSOLE.print(f"written to {fit.measure_moments(args.checkpoint, args.output)}")
        return
    if not args.prior:
        raise GapzooError(f"'{args.checkpoint}' is a forecaster; name the prior of its modes too")
    done = fit.recalibrate(args.checkpoint, args.prior, args.output)
    CONSOLE.print(f"error statistics written to {done}")


def add(commands: Any) -> None:
    """Its arguments."""
    parser = command(commands, "calibrate", calibrate)
    parser.add_argument("checkpoint", help="of a prior or a forecaster")
    parser.add_argument(
        "prior", nargs="?", help="of a forecaster: checkpoint whose modes its errors are found in"
    )
    parser.add_argument("--output", type=Path, help="checkpoint folder (its own)")
