"""gapzoo finetune"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from gapzoo.commands import CONSOLE, command
from gapzoo.commands.train import places


def finetune(args: argparse.Namespace) -> None:
    """Train a checkpoint on, by a recipe: other data, channels, grid; parts of it, or low ranks."""
    from gapzoo import fit, prepare

    wanted = prepare.finetuning(args.checkpoint, args.recipe, args.changes)
    run = args.run or Path("runs") / wanted.name
    output = args.output or Path("checkpoints") / wanted.name
    done = fit.fit(wanted, run, output)
    CONSOLE.print(f"checkpoint written to {done}")


def add(commands: Any) -> None:
    """Its arguments."""
    tune = command(commands, "finetune", finetune)
    tune.add_argument("checkpoint", help="name, folder, or hf://OWNER/NAME")
    tune.add_argument("recipe", type=Path, help="such as recipes/finetune/plus2k.yaml")
    places(tune)
