"""gapzoo train"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from gapzoo.commands import CONSOLE, command
from gapzoo.core import GapzooError


def train(args: argparse.Namespace) -> None:
    """Train by a recipe, or go on with a run."""
    from gapzoo import fit, recipe

    if args.resume:
        if args.recipe or args.run:
            raise GapzooError("a run goes on by its own recipe; give --resume RUN alone")
        wanted, run = fit.read_run(args.resume), args.resume
    elif args.recipe:
        wanted = recipe.load(args.recipe, args.changes)
        run = args.run or Path("runs") / wanted.name
    else:
        raise GapzooError("nothing to train; give a recipe, or --resume RUN")
    output = args.output or Path("checkpoints") / wanted.name
    done = fit.fit(wanted, run, output, resume=bool(args.resume))
    CONSOLE.print(f"checkpoint written to {done}")


def places(parser: argparse.ArgumentParser) -> None:
    """Arguments that say where things go."""
    parser.add_argument("changes", nargs="*", help="key=value")
    parser.add_argument("--run", type=Path, help="run folder (runs/NAME)")
    parser.add_argument("--output", type=Path, help="checkpoint folder (checkpoints/NAME)")


def add(commands: Any) -> None:
    """Its arguments."""
    run = command(commands, "train", train)
    run.add_argument("recipe", nargs="?", type=Path)
    places(run)
    run.add_argument("--resume", type=Path, metavar="RUN", help="go on with this run")
