"""gapzoo sea"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

from gapzoo.commands import CONSOLE, command
from gapzoo.commands.forecast import progress, put_together, read, sea_of

SCORES = {"rmse": "RMSE, K", "acc": "anomaly correlation", "nino34": "Nino3.4, RMSE, K"}


def sea(args: argparse.Namespace) -> None:
    """Compare what may be assumed of the sea surface at a recipe's starts with what came."""
    from gapzoo.tasks.initial import initial_of
    from gapzoo.tasks.sea import KINDS
    from gapzoo.tasks.sea_skill import sea_skill
    from gapzoo.tasks.seasonal import SeasonalRecipe

    wanted, _ = read(SeasonalRecipe, args)
    world = put_together(wanted, wanted.initial)[0].world
    own = getattr(initial_of(wanted.initial, world, 0.0), "archive", None)
    one = sea_of(wanted, world, own, known_days=wanted.known_days, eofs=wanted.eofs)
    seas = {kind: dataclasses.replace(one, kind=kind) for kind in KINDS}
    truth = seas.pop("observed")
    with progress("starts", len(wanted.times)) as advance:
        found = sea_skill(seas, truth, wanted.times, wanted.months, advance)
    for score, title in SCORES.items():
        CONSOLE.print(_table(title, {name: getattr(one, score) for name, one in found.items()}))
    if args.png:
        CONSOLE.print(f"picture written to {_picture(found, args.png)}", markup=False)


def _table(title: str, values: dict[str, Any]) -> Any:
    from rich.table import Table

    out = Table("SST", title=title, title_justify="left")
    for month in range(len(next(iter(values.values())))):
        out.add_column(f"month {month + 1}", justify="right")
    for name, row in values.items():
        out.add_row(name, *("" if v != v else f"{v:.2f}" for v in row))
    return out


def _picture(found: dict[str, Any], path: Path) -> Path:
    """RMSE by month."""
    from gapzoo.report.figures import curves
    from gapzoo.report.maps import save

    lines = {name: (range(1, len(one.rmse) + 1), one.rmse) for name, one in found.items()}
    drawn = curves(lines, title="sea surface", x="month", y="RMSE, K", dashed=("climatology",))  # type: ignore[arg-type]
    return save(drawn, path)


def add(commands: Any) -> None:
    """Its arguments."""
    parser = command(commands, "sea", sea)
    parser.add_argument("recipe", type=Path, help="whose starts and months; see recipes/seasonal")
    parser.add_argument("changes", nargs="*", help="key=value")
    parser.add_argument("--png", type=Path, metavar="FILE", help="write the errors as a picture")
