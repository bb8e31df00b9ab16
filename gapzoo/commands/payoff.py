"""gapzoo payoff"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from gapzoo.commands import CONSOLE, command


def payoff(args: argparse.Namespace) -> None:
    """Compare a run of fine-tuning with one from scratch: samples until each validation loss."""
    from gapzoo.payoff import figure, table
    from gapzoo.report.maps import save

    CONSOLE.print(table(args.tuned, args.scratch), markup=False, soft_wrap=True)
    if args.png:
        written = save(figure(args.tuned, args.scratch), args.png)
        CONSOLE.print(f"picture written to {written}", markup=False)


def add(commands: Any) -> None:
    """Its arguments."""
    compare = command(commands, "payoff", payoff)
    compare.add_argument("tuned", type=Path, help="run folder of fine-tuning")
    compare.add_argument("scratch", type=Path, help="run folder of training from new weights")
    compare.add_argument("--png", type=Path, metavar="FILE", help="write both curves as a picture")
