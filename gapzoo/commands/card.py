"""gapzoo card"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from gapzoo.commands import CONSOLE, command

BOARD = Path("evaluation/leaderboard")


def show(args: argparse.Namespace) -> None:
    """Show a checkpoint's card."""
    from rich.markdown import Markdown

    from gapzoo import checkpoint

    folder = checkpoint.find(args.checkpoint)
    found = checkpoint.load(folder)
    if args.write:
        checkpoint.add_scores(folder, board_scores(args.board, found.name, found.hash))
    CONSOLE.print(Markdown(checkpoint.card(checkpoint.load(folder).details)))


def board_scores(board: Path, name: str, digest: str) -> dict[str, str]:
    """CRPS by protocol and setting, of the leaderboard's rows that a checkpoint made."""
    found: dict[str, str] = {}
    for path in sorted(board.glob("*.json")):
        row = json.loads(path.read_text())
        kinds = (("checkpoint", "weights_sha256"), ("forecaster", "forecaster_sha256"))
        if (name, digest) not in [(row.get(who), row.get(which)) for who, which in kinds]:
            continue
        for setting, scores in row.get("scores", {}).items():
            if "crps" in scores:
                found[f"{path.stem}, {setting}: CRPS"] = f"{scores['crps']:.4f}"
    return found


def add(commands: Any) -> None:
    """Its arguments."""
    card = command(commands, "card", show)
    card.add_argument("checkpoint", help="name, folder, or hf://OWNER/NAME")
    card.add_argument("--write", action="store_true", help="add the leaderboard's scores to it")
    card.add_argument("--board", type=Path, default=BOARD, help="rows (evaluation/leaderboard)")
