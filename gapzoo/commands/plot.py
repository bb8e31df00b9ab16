"""gapzoo plot"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from gapzoo.commands import CONSOLE, command


def plot(args: argparse.Namespace) -> None:
    """Draw a field, or the difference of two, of an archive or a store as a map."""
    from gapzoo.report import maps

    field, difference = _field(args)
    values, units = maps.shown(field.values, field.units)
    title = field.title
    if difference:
        title += f"\nminus {difference}"
    figure = maps.map_figure(
        field.grid,
        values,
        title=title,
        units=units,
        label=field.label if field.member != "spread" else "",
        difference=difference is not None,
        land=field.land,
        limits=tuple(args.limits) if args.limits else None,
        projection=args.projection,
    )
    name = field.label.replace("@", "-") + ("-difference" if difference else "")
    path = maps.save(figure, args.output or Path(f"{name}.png"))
    low, mean, high = values.min(), _mean(field.grid, values), values.max()
    CONSOLE.print(
        f"{path}: {' '.join(title.split())}; {low:.4g} to {high:.4g} {units}, mean {mean:.4g}",
        soft_wrap=True,
        highlight=False,
    )


def _field(args: argparse.Namespace) -> tuple[Any, str | None]:
    """What is drawn, and what was taken from it."""
    from gapzoo.data.picking import Pick, pick

    wanted = Pick(args.variable, args.level, args.time, args.lead, args.member)
    first = pick(args.store, wanted)
    if args.minus is None and args.minus_time is None and args.minus_member is None:
        return first, None
    other = args.minus or args.store
    time, lead = args.minus_time or first.time, None
    if args.minus is None and args.minus_time is None:
        time, lead = args.time, args.lead
    second = pick(other, Pick(args.variable, wanted.level, time, lead, args.minus_member))
    return first.minus(second), f"{Path(other).name}: {second.title}"


def _mean(grid: Any, values: Any) -> float:
    weights = grid.area_weights[:, None]
    return float((values * weights).mean())


def add(commands: Any) -> None:
    """Its arguments."""
    run = command(commands, "plot", plot)
    run.add_argument("store", help="archive, analyses.zarr, forecast.zarr, or a CF file or URL")
    run.add_argument("variable", help="such as 2m_temperature or temperature@850")
    run.add_argument("--level", type=float, help="hPa or sigma, where it has levels")
    run.add_argument("--time", help="such as 2010-01-31T12, of a forecast its start (the last)")
    run.add_argument("--lead", type=float, help="hours of a forecast (the first)")
    run.add_argument("--member", help="number, mean or spread (mean)")
    run.add_argument("--minus", metavar="STORE", help="draw the difference from this one's field")
    run.add_argument("--minus-time", metavar="TIME", help="its time (the first one's valid time)")
    run.add_argument("--minus-member", metavar="MEMBER", help="its member")
    run.add_argument("--limits", nargs=2, type=float, metavar=("LOW", "HIGH"), help="of colours")
    run.add_argument(
        "--projection", default="plain", help="plain, robinson, mollweide, north, south"
    )
    run.add_argument("--output", type=Path, help="picture (VARIABLE.png); .png, .svg or .pdf")
