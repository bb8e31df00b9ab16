"""gapzoo join"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from gapzoo.commands import CONSOLE, command


def join(args: argparse.Namespace) -> None:
    """Make one prior of two: one's network at lower noise, the other's at higher."""
    from gapzoo.join import join

    done = join(args.name, args.low, args.high, args.at, args.output)
    CONSOLE.print(f"checkpoint written to {done}")


def add(commands: Any) -> None:
    """Its arguments."""
    parser = command(commands, "join", join)
    parser.add_argument("name", help="of the new checkpoint, such as stages_base.speedy-t21-v1")
    parser.add_argument("low", help="prior that is asked up to that noise")
    parser.add_argument("high", help="prior that is asked above it")
    parser.add_argument("--at", type=float, required=True, help="noise-to-signal ratio, such as 4")
    parser.add_argument("--output", type=Path, help="checkpoint folder (checkpoints/NAME)")
