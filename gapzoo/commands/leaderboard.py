"""gapzoo leaderboard"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from gapzoo.commands import CONSOLE, command


def run(args: argparse.Namespace) -> None:
    """Run an entry under a protocol and store its row; a killed run goes on where it was."""
    from gapzoo.data.archive import Archive
    from gapzoo.leaderboard import entries, metrics, protocol, rows

    wanted = protocol.load(args.protocol)
    entry = entries.resolve([*(args.entry or []), *args.words])
    name, archive = args.name or entry.name, Archive(args.archive)
    given = (entry.method, entry.options, args.folder, name, args.device, args.processes)
    path = rows.store(wanted, archive, *given)
    every, why = rows.alike(path, args.folder)
    _print(every, metrics.names(every))
    for line in why:
        CONSOLE.print(f"not beside it: {line}", soft_wrap=True)
    CONSOLE.print(f"row written to {path}", soft_wrap=True)


def tune(args: argparse.Namespace) -> None:
    """Run an entry for every combination of listed options and keep the best of each setting."""
    from gapzoo import recipe
    from gapzoo.data.archive import Archive
    from gapzoo.leaderboard import protocol, rows

    given = recipe.options(args.options)
    grid = {k: v if isinstance(v, list) else [v] for k, v in given.items()}
    wanted, archive = protocol.load(args.protocol), Archive(args.archive)
    where = {"folder": args.folder, "device": args.device, "processes": args.processes}
    earlier = (wanted, archive, args.entry, args.folder)
    before = rows.tuned_before(*earlier) if args.add else []
    found = rows.joined(before, rows.tune(wanted, archive, args.entry, grid, **where))
    for row in found["tried"]:
        CONSOLE.print(row)
    path = rows.save({**found, "entry": f"{args.entry}.tuned"}, args.folder)
    CONSOLE.print(f"best: {found['best']}\nwritten to {path}")


def show(args: argparse.Namespace) -> None:
    """Print a protocol's table, with what is real marked; of every protocol's main score."""
    from gapzoo.leaderboard import metrics, rows, tables

    wanted = [args.protocol] if args.protocol else rows.protocols(args.folder)
    for name in wanted:
        every = tables.found(name, args.folder)
        metric = args.metric or metrics.names(every)[0]
        if args.markdown:
            text = tables.markdown(name, metric, args.folder)
            CONSOLE.print(text, soft_wrap=True, markup=False, highlight=False)
            continue
        _print(every, [metric], args.intervals, args.against)
    if not wanted:
        CONSOLE.print(f"no rows in {args.folder}; run an entry first")


def _print(
    every: list[dict[str, Any]], names: list[str], intervals: bool = False, against: str = ""
) -> None:
    """Tables of scores, what their marks rest on, and what the rows cost."""
    from gapzoo.leaderboard import tables

    note = ""
    for metric in names:
        ranking = tables.Ranking(every, metric)
        note = note or ranking.note()
        CONSOLE.print(tables.table(ranking, intervals))
        if against:
            CONSOLE.print(tables.against(ranking, against))
    CONSOLE.print(tables.costs(every))
    if note:
        CONSOLE.print(note)


def page(args: argparse.Namespace) -> None:
    """Write all rows as one HTML page that works offline."""
    from gapzoo.report import board

    CONSOLE.print(f"page written to {board.write(args.output, args.folder)}")


def readme(args: argparse.Namespace) -> None:
    """Write the tables of a README from the rows, between its markers."""
    from gapzoo.leaderboard import readme as text

    changed = text.write(args.file, args.folder)
    CONSOLE.print(f"{args.file} {'written' if changed else 'is in step already'}")


def add(commands: Any) -> None:
    """Its actions and their arguments."""
    board = commands.add_parser("leaderboard", help="Run protocols and print their tables.")
    parts = board.add_subparsers(required=True, metavar="ACTION")
    runs = command(parts, "run", run)
    runs.add_argument("protocol", help="name or file")
    words = "a checkpoint, a method, a YAML file or forecasts, then key=value of the method"
    runs.add_argument("--entry", nargs="+", metavar=("ENTRY", "key=value"), help=words)
    runs.add_argument("words", nargs="*", metavar="entry", help="the same without --entry")
    runs.add_argument("--archive", type=Path, default=Path("archives/speedy-t21.zarr"))
    runs.add_argument("--name", help="of the row, where one method has several")
    shows = command(parts, "show", show)
    shows.add_argument("protocol", nargs="?", help="all that have rows where none is named")
    shows.add_argument("--metric", help="the protocol's main score where none is named")
    shows.add_argument("--intervals", action="store_true", help="95 %% of each score")
    shows.add_argument("--against", default="", metavar="ROW", help="differences and p-values")
    shows.add_argument("--markdown", action="store_true", help="for a README")
    readmes = command(parts, "readme", readme)
    readmes.add_argument("file", type=Path, nargs="?", default=Path("README.md"))
    tunes = command(parts, "tune", tune)
    tunes.add_argument("protocol", help="name or file, in the validation years")
    tunes.add_argument("entry", help="a method")
    tunes.add_argument("options", nargs="*", help="key=[value,value,...]")
    tunes.add_argument("--archive", type=Path, default=Path("archives/speedy-t21.zarr"))
    tunes.add_argument("--folder", type=Path, default=Path("evaluation/tuning"))
    tunes.add_argument("--add", action="store_true", help="to what was tried before")
    for each in (runs, tunes):
        each.add_argument("--processes", type=int, default=1, help="that share the cases")
        each.add_argument("--device", default="cpu", help="that networks compute on, such as cuda")
    pages = command(parts, "page", page)
    pages.add_argument("--output", type=Path, default=Path("leaderboard.html"))
    for each in (runs, shows, readmes, pages):
        each.add_argument("--folder", type=Path, default=Path("evaluation/leaderboard"))
