"""gapzoo check"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from gapzoo.commands import CONSOLE, command


def check(args: argparse.Namespace) -> None:
    """Validate a recipe without training."""
    from gapzoo import prepare, recipe
    from gapzoo.checking import examine

    if args.checkpoint:
        wanted = prepare.finetuning(args.checkpoint, args.recipe, args.changes)
    else:
        wanted = recipe.load(args.recipe, args.changes)
    for line in examine(wanted):
        CONSOLE.print(line, soft_wrap=True)


def add(commands: Any) -> None:
    """Its arguments."""
    verify = command(commands, "check", check)
    verify.add_argument("recipe", type=Path)
    verify.add_argument("changes", nargs="*", help="key=value")
    verify.add_argument("--checkpoint", help="what a recipe of fine-tuning starts from")
