"""gapzoo demo"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from gapzoo.commands import CONSOLE, command


def demo(args: argparse.Namespace) -> None:
    """Simulate, assimilate, forecast and score, with one page as the result."""
    from gapzoo.demo import Demo

    given = {k: v for k, v in vars(args).items() if k in _DEMO and v is not None}
    CONSOLE.print(f"report written to {Demo(**given).run()}")


_DEMO = ("folder", "prior", "forecaster", "start", "members", "seed")


def add(commands: Any) -> None:
    """Its arguments."""
    tour = command(commands, "demo", demo)
    tour.add_argument("--folder", type=Path, help="of the truth and the page (demo)")
    tour.add_argument("--prior", help="checkpoint")
    tour.add_argument("--forecaster", help="checkpoint")
    tour.add_argument("--start", help="first day of the truth (2010-01-01)")
    tour.add_argument("--members", type=int, help="(16)")
    tour.add_argument("--seed", type=int, help="(0)")
