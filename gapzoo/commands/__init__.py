"""The command line's commands, one file each.

A file defines ``add(commands)``, which adds its parser by ``command``; a command is a plain
function of the parsed arguments whose docstring's first line is its help.
"""

from __future__ import annotations

import argparse
import pkgutil
from collections.abc import Callable
from importlib import import_module
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

CONSOLE = Console()


def progress_bar() -> Progress:
    """A bar for what takes long: its name, how far, how many of how many, the time left."""
    columns = ("[progress.description]{task.description}", BarColumn(), MofNCompleteColumn())
    return Progress(*columns, TimeRemainingColumn(), console=CONSOLE)


def command(commands: Any, name: str, run: Callable[..., None]) -> argparse.ArgumentParser:
    """A parser among argparse's subparsers that runs a function of the parsed arguments."""
    text = (run.__doc__ or "").splitlines()[0]
    parser = commands.add_parser(name, help=text, description=text)
    parser.set_defaults(run_command=run)
    return parser


def add_all(commands: Any) -> None:
    """Add the commands of every file here, by name."""
    for found in sorted(pkgutil.iter_modules(__path__), key=lambda m: m.name):
        import_module(f"{__name__}.{found.name}").add(commands)
