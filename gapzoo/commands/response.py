"""gapzoo response"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from gapzoo.commands import CONSOLE, command


def response(args: argparse.Namespace) -> None:
    """How a simulated climate answers a change: a run less its control, beside a reference's."""
    from rich.table import Table

    from gapzoo.report import response as report
    from gapzoo.tasks.response import change

    run = change(args.run, args.control, args.skip)
    reference = None
    if args.reference:
        reference = change(args.reference[0], args.reference[1], args.skip)
    out = Table(
        title=f"{args.run} less {args.control}, {len(run.years)} years", title_justify="left"
    )
    rows = report.table(run, reference)
    for n, name in enumerate(report.HEAD[: len(rows[0])]):
        out.add_column(name, justify="left" if n < 2 else "right", overflow="fold")
    for row in rows:
        out.add_row(*map(str, row))
    CONSOLE.print(out)
    names = tuple(str(path) for path in (args.run, args.control, *(args.reference or ())))
    page = report.write(args.output or args.run / "response.html", run, reference, names)
    CONSOLE.print(f"page written to {page}")


def add(commands: Any) -> None:
    """Its arguments."""
    parser = command(commands, "response", response)
    parser.add_argument("run", type=Path, help="folder of 'gapzoo simulate', such as a warmer one")
    parser.add_argument("control", type=Path, help="folder of the same without the change")
    parser.add_argument(
        "--reference",
        nargs=2,
        type=Path,
        metavar=("RUN", "CONTROL"),
        help="another model's two folders",
    )
    parser.add_argument("--skip", type=int, default=1, metavar="YEARS", help="to adjust in (1)")
    parser.add_argument("--output", type=Path, help="of the page (RUN/response.html)")
