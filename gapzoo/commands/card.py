"""gapzoo card"""

from __future__ import annotations

import argparse
from typing import Any

from gapzoo.commands import CONSOLE, command


def show(args: argparse.Namespace) -> None:
    """Show a checkpoint's card."""
    from rich.markdown import Markdown

    from gapzoo import checkpoint

    folder = checkpoint.find(args.checkpoint)
    body = checkpoint.load(folder).details
    if args.write:
        checkpoint.write_card(folder, body)
    CONSOLE.print(Markdown(checkpoint.card(body)))


def add(commands: Any) -> None:
    """Its arguments."""
    card = command(commands, "card", show)
    card.add_argument("checkpoint", help="name, folder, or hf://OWNER/NAME")
    card.add_argument("--write", action="store_true", help="write card.md anew")
