"""gapzoo export"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from gapzoo.commands import CONSOLE, command


def export(args: argparse.Namespace) -> None:
    """Write a run's latest weights as a checkpoint."""
    from gapzoo import fit

    name = fit.read_run(args.run).name
    done = fit.export(args.run, args.output or Path("checkpoints") / name)
    CONSOLE.print(f"checkpoint written to {done}")


def add(commands: Any) -> None:
    """Its arguments."""
    out = command(commands, "export", export)
    out.add_argument("run", type=Path)
    out.add_argument("--output", type=Path, help="checkpoint folder (checkpoints/NAME)")
