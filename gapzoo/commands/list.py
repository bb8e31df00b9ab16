"""gapzoo list"""

from __future__ import annotations

import argparse
from typing import Any

from gapzoo.commands import CONSOLE, command


def show(args: argparse.Namespace) -> None:
    """List what is registered."""
    from gapzoo.listing import registries

    for kind, names in registries(args.pattern).items():
        CONSOLE.print(f"[bold]{kind}[/bold]: {', '.join(names)}")


def add(commands: Any) -> None:
    """Its arguments."""
    listing = command(commands, "list", show)
    listing.add_argument("pattern", nargs="?", default="*")
