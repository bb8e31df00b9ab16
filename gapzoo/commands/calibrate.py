"""gapzoo calibrate"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from gapzoo.commands import CONSOLE, command


def calibrate(args: argparse.Namespace) -> None:
    """Estimate a forecaster's errors anew, in the modes of another prior."""
    from gapzoo import fit

    done = fit.recalibrate(args.forecaster, args.prior, args.output)
    CONSOLE.print(f"error statistics written to {done}")


def add(commands: Any) -> None:
    """Its arguments."""
    parser = command(commands, "calibrate", calibrate)
    parser.add_argument("forecaster", help="checkpoint")
    parser.add_argument("prior", help="checkpoint whose modes the errors are estimated in")
    parser.add_argument("--output", type=Path, help="checkpoint folder (the forecaster's own)")
