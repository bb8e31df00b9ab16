"""gapzoo check"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from gapzoo.commands import CONSOLE, command


def check(args: argparse.Namespace) -> None:
    """Validate a recipe without training."""
    from gapzoo import fit, recipe

    wanted = recipe.load(args.recipe, args.changes)
    data = fit.data_of(wanted)
    for period in ("train", "validate"):
        data.dataset(period)
    module = fit.module_of(wanted, data.world)
    count = sum(p.numel() for p in module.parameters() if p.requires_grad)
    CONSOLE.print(
        f"{wanted.name}: {wanted.model}, {count:,} parameters, {len(data.world.channels)} channels "
        f"of {data.world.name}; weights, average and optimiser take {count * 16 / 1e6:.0f} MB"
    )


def add(commands: Any) -> None:
    """Its arguments."""
    verify = command(commands, "check", check)
    verify.add_argument("recipe", type=Path)
    verify.add_argument("changes", nargs="*", help="key=value")
