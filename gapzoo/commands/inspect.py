"""gapzoo inspect"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from math import floor, log10
from pathlib import Path
from typing import Any

from gapzoo.commands import CONSOLE, command
from gapzoo.core import GapzooError

GAPS = 6
"""Gaps in time that are listed."""
FIRST = ("2m_temperature", "mean_sea_level_pressure", "surface_pressure")
"""What the thumbnail shows, where it is there."""


def inspect(args: argparse.Namespace) -> None:
    """Show what is in an archive: variables, levels, period, gaps, statistics, size and a map."""
    from gapzoo.data.archive import Archive
    from gapzoo.data.summary import summarise

    archive = Archive(args.archive)
    found = summarise(archive)
    CONSOLE.print(_head(found, str(args.archive)), highlight=False)
    CONSOLE.print(_table(found, args.channels))
    if not args.no_map:
        _map(archive, args)


def _head(found: Any, path: str) -> Any:
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    for name, text in _facts(found, path):
        table.add_row(f"[bold]{name}[/bold]", text)
    return table


def _facts(found: Any, path: str) -> list[tuple[str, str]]:
    height, width = found.grid.shape
    latitude = sorted(found.grid.latitude)
    rows = [
        ("archive", f"{path} (world {found.world}, hash {found.hash})"),
        ("source", f"{found.source}; licence: {found.license}"),
        ("grid", f"{width} x {height}, {latitude[0]:.5g} to {latitude[-1]:.5g} degrees north"),
        ("period", _period(found)),
        ("gaps", _gaps(found)),
        ("static", ", ".join(found.static) or "none"),
        ("size", _size(found)),
    ]
    done, total = found.shards
    if done < total:
        rows.append(("[red]unfinished[/red]", f"{done} of {total} shards; go on with build-data"))
    elif found.state[0].mean is None:
        rows.append(("[yellow]no statistics[/yellow]", "it is read under those of another"))
    return rows


def _period(found: Any) -> str:
    times = found.times
    text = f"{times[0]:%Y-%m-%d %H:%M} to {times[-1]:%Y-%m-%d %H:%M}, {len(times):,} steps"
    if found.step is None:
        return text
    return f"{text} of {found.step.total_seconds() / 3600:g} h"


def _gaps(found: Any) -> str:
    joints = found.runs - 1 - len(found.gaps)
    after = f"; {joints} joints of separate runs" if joints > 0 else ""
    if not found.gaps:
        return f"none{after}"
    listed = [f"{a:%Y-%m-%d %H:%M} to {b:%Y-%m-%d %H:%M}" for a, b in found.gaps[:GAPS]]
    more = len(found.gaps) - GAPS
    text = ", ".join(listed) + (f" and {more} more" if more > 0 else "")
    return f"{len(found.gaps)} ({found.missing} steps): {text}{after}"


def _size(found: Any) -> str:
    if found.bytes is None:
        return "not local"
    unit, factor = ("GB", 1e9) if found.bytes >= 1e9 else ("MB", 1e6)
    a_step = found.bytes / max(1, len(found.times)) / 1e3
    return f"{found.bytes / factor:.3g} {unit} on disk, {a_step:.4g} kB a step"


def _table(found: Any, channels: bool) -> Any:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=0, show_edge=False)
    for name in ("variable", f"{found.level_kind} levels", "units", "mean", "std", "change"):
        left = name in ("variable", "units")
        table.add_column(
            name,
            justify="left" if left else "right",
            no_wrap=name != "variable",
            overflow="fold",
        )
    grouped: dict[str, list[Any]] = {}
    for row in found.state:
        grouped.setdefault(f"{row.name}@{row.level}" if channels else row.name, []).append(row)
    for rows in grouped.values():
        table.add_row(*_cells(rows))
    table.add_section()
    for row in found.forcing:
        table.add_row(*_cells([row]), style="dim")
    table.caption = "std over area and time, of a forcing that of its anomalies; change per step"
    return table


def _cells(rows: Sequence[Any]) -> list[str]:
    from gapzoo.report.maps import SHOWN

    units, factor = SHOWN.get(rows[0].units, (rows[0].units, 1.0))
    levels = [row.level for row in rows if row.level is not None]
    text = ", ".join(f"{x:g}" for x in levels)
    if len(levels) > 2:
        text = f"{levels[0]:g}..{levels[-1]:g} ({len(levels)})"
    keys = ("mean", "std", "change")
    numbers = [_range([getattr(row, key) for row in rows], factor) for key in keys]
    return [rows[0].name, text, units, *numbers]


def _range(values: Sequence[float | None], factor: float) -> str:
    """Three digits of one number; from least to greatest two of what is farthest from zero."""
    known = [v * factor for v in values if v is not None]
    if not known:
        return "-"
    digits = _digits(max(map(abs, known)), 3 if len(known) == 1 else 2)
    low, high = _short(min(known), digits), _short(max(known), digits)
    return low if low == high else f"{low}..{high}"


def _digits(number: float, count: int) -> int:
    """Decimals that show so many digits."""
    return max(0, count - 1 - floor(log10(number))) if number else 0


def _short(number: float, digits: int) -> str:
    """No exponent where it can be."""
    if number != 0 and (abs(number) >= 1e5 or digits > 5):
        return f"{number:.2g}"
    text = f"{number:.{digits}f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text == "-0" else text


def _map(archive: Any, args: argparse.Namespace) -> None:
    """The thumbnail, and the picture where one is asked for."""
    from gapzoo.data.picking import Pick, pick
    from gapzoo.report import maps

    try:
        field = pick(args.archive, Pick(args.variable or _first(archive), None, args.time))
    except GapzooError as error:
        if args.variable or args.time:
            raise
        CONSOLE.print(f"no map: {error}", markup=False)  # of an archive that is unfinished
        return
    values, units = maps.shown(field.values, field.units)
    colour = CONSOLE.color_system is not None
    width = max(16, min(96, CONSOLE.width - 2))
    CONSOLE.print(
        f"{field.title}: {values.min():.4g} to {values.max():.4g} {units}", highlight=False
    )
    CONSOLE.print(maps.thumbnail(field.grid, values, width=width, label=field.label, colour=colour))
    if args.png:
        made = maps.map_figure(
            field.grid, values, title=field.title, units=units, label=field.label, land=field.land
        )
        CONSOLE.print(f"picture written to {maps.save(made, args.png)}")


def _first(archive: Any) -> str:
    labels = archive.channels.labels
    return next((name for name in FIRST if name in labels), labels[-1])


def add(commands: Any) -> None:
    """Its arguments."""
    run = command(commands, "inspect", inspect)
    run.add_argument("archive", type=Path, help="such as archives/speedy-t21.zarr")
    run.add_argument("--channels", action="store_true", help="a row a channel, not a variable")
    run.add_argument("--variable", help="what the map shows, such as temperature@0.835")
    run.add_argument("--time", help="of the map (the last)")
    run.add_argument("--no-map", action="store_true", help="numbers alone")
    run.add_argument("--png", type=Path, metavar="FILE", help="write the map as a picture too")
