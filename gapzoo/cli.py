"""The command line: each command is a plain function; bad input is one line and exit code 2."""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from gapzoo.core import GapzooError

CONSOLE = Console()
ERRORS = Console(stderr=True, soft_wrap=True, highlight=False)


def build_data(args: argparse.Namespace) -> None:
    """Fill an archive from a source."""
    from gapzoo.data.build import Build

    arguments = {k: v for k, v in vars(args).items() if k in _SPEEDY and v is not None}
    output = args.output or Path(f"archives/speedy-t{args.truncation or 21}.zarr")
    archive = Build("speedy", arguments, output, tuple(args.train)).run(args.workers)
    CONSOLE.print(
        f"{output}: {len(archive.times)} steps of {len(archive.channels)} channels, "
        f"{archive.times[0]:%Y-%m-%d} to {archive.times[-1]:%Y-%m-%d}, hash {archive.hash}"
    )


_SPEEDY = ("truncation", "start", "end", "hours", "seed", "spin_up_days", "sst", "sst_offset")


def train(args: argparse.Namespace) -> None:
    """Train by a recipe, or go on with a run."""
    from gapzoo import fit, recipe

    if args.resume:
        wanted, run = fit.read_run(args.resume), args.resume
    elif args.recipe:
        wanted = recipe.load(args.recipe, args.changes)
        run = args.run or Path("runs") / wanted.name
    else:
        raise GapzooError("nothing to train; give a recipe, or --resume RUN")
    output = args.output or Path("checkpoints") / wanted.name
    done = fit.fit(wanted, run, output, resume=bool(args.resume))
    CONSOLE.print(f"checkpoint written to {done}")


def export(args: argparse.Namespace) -> None:
    """Write a run's latest weights as a checkpoint."""
    from gapzoo import fit

    name = fit.read_run(args.run).name
    done = fit.export(args.run, args.output or Path("checkpoints") / name)
    CONSOLE.print(f"checkpoint written to {done}")


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


def leaderboard_run(args: argparse.Namespace) -> None:
    """Run an entry under a protocol and store its row."""
    from gapzoo import recipe
    from gapzoo.data.archive import Archive
    from gapzoo.leaderboard import protocol, rows

    options, wanted = recipe.options(args.options), protocol.load(args.protocol)
    row = rows.run(wanted, Archive(args.archive), args.entry, options)
    path = rows.save(row, args.folder, args.name)
    for metric in rows.METRICS[wanted.track]:
        CONSOLE.print(rows.table(wanted.name, metric, args.folder))
    CONSOLE.print(f"row written to {path}")


def leaderboard_tune(args: argparse.Namespace) -> None:
    """Run an entry for every combination of listed options and keep the best of each setting."""
    from gapzoo import recipe
    from gapzoo.data.archive import Archive
    from gapzoo.leaderboard import protocol, rows

    given = recipe.options(args.options)
    grid = {k: v if isinstance(v, list) else [v] for k, v in given.items()}
    found = rows.tune(protocol.load(args.protocol), Archive(args.archive), args.entry, grid)
    for row in found["tried"]:
        CONSOLE.print(row)
    path = rows.save({**found, "entry": f"{args.entry}.tuned"}, args.folder)
    CONSOLE.print(f"best: {found['best']}\nwritten to {path}")


def leaderboard_show(args: argparse.Namespace) -> None:
    """Print a protocol's table."""
    from gapzoo.leaderboard import rows

    if args.markdown:
        CONSOLE.print(rows.markdown(args.protocol, args.metric, args.folder), soft_wrap=True)
        return
    CONSOLE.print(rows.table(args.protocol, args.metric, args.folder))


def demo(args: argparse.Namespace) -> None:
    """Simulate, assimilate, forecast and score, with one page as the result."""
    from gapzoo.demo import Demo

    given = {k: v for k, v in vars(args).items() if k in _DEMO and v is not None}
    CONSOLE.print(f"report written to {Demo(**given).run()}")


_DEMO = ("folder", "prior", "forecaster", "start", "members", "seed")


def show(args: argparse.Namespace) -> None:
    """List what is registered."""
    from gapzoo.listing import registries

    for kind, names in registries(args.pattern).items():
        CONSOLE.print(f"[bold]{kind}[/bold]: {', '.join(names)}")


def _command(commands: Any, name: str, run: Callable[..., None]) -> argparse.ArgumentParser:
    text = (run.__doc__ or "").splitlines()[0]
    parser = commands.add_parser(name, help=text, description=text)
    parser.set_defaults(run_command=run)
    return parser


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    top = argparse.ArgumentParser("gapzoo", description="Generative assimilation and prediction")
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    data = _command(commands, "build-data", build_data)
    data.add_argument("--output", type=Path, help="store (archives/speedy-tTRUNCATION.zarr)")
    data.add_argument("--truncation", type=int, choices=(21, 31), help="21 (64x32) or 31 (96x48)")
    data.add_argument("--start", help="first day (1979-01-01)")
    data.add_argument("--end", help="last day (2013-12-31)")
    data.add_argument("--hours", type=int, help="time between steps (6)")
    data.add_argument("--seed", type=int, help="another seed is another realisation (0)")
    data.add_argument("--spin-up-days", type=int, help="thrown away at each start (90)")
    data.add_argument("--sst", choices=("observed", "climatology"))
    data.add_argument("--sst-offset", type=float, help="K added to the sea surface")
    data.add_argument("--train", nargs=2, default=("1979-01-01", "2003-12-31"))
    data.add_argument("--workers", type=int, help="processes, one pinned to a core")
    run = _command(commands, "train", train)
    run.add_argument("recipe", nargs="?", type=Path)
    run.add_argument("changes", nargs="*", help="key=value")
    run.add_argument("--run", type=Path, help="run folder (runs/NAME)")
    run.add_argument("--output", type=Path, help="checkpoint folder (checkpoints/NAME)")
    run.add_argument("--resume", type=Path, metavar="RUN", help="go on with this run")
    out = _command(commands, "export", export)
    out.add_argument("run", type=Path)
    out.add_argument("--output", type=Path, help="checkpoint folder (checkpoints/NAME)")
    verify = _command(commands, "check", check)
    verify.add_argument("recipe", type=Path)
    verify.add_argument("changes", nargs="*", help="key=value")
    _leaderboard(commands)
    tour = _command(commands, "demo", demo)
    tour.add_argument("--folder", type=Path, help="of the truth and the page (demo)")
    tour.add_argument("--prior", help="checkpoint")
    tour.add_argument("--forecaster", help="checkpoint")
    tour.add_argument("--start", help="first day of the truth (2010-01-01)")
    tour.add_argument("--members", type=int, help="(16)")
    tour.add_argument("--seed", type=int, help="(0)")
    listing = _command(commands, "list", show)
    listing.add_argument("pattern", nargs="?", default="*")
    return top


def _leaderboard(commands: Any) -> None:
    board = commands.add_parser("leaderboard", help="Run protocols and print their tables.")
    parts = board.add_subparsers(required=True, metavar="ACTION")
    run = _command(parts, "run", leaderboard_run)
    run.add_argument("protocol", help="name or file")
    run.add_argument("entry", help="a method, see 'gapzoo list'")
    run.add_argument("options", nargs="*", help="key=value of the method")
    run.add_argument("--archive", type=Path, default=Path("archives/speedy-t21.zarr"))
    run.add_argument("--name", help="of the row, where one method has several")
    show = _command(parts, "show", leaderboard_show)
    show.add_argument("protocol")
    show.add_argument("--metric", default="crps")
    show.add_argument("--markdown", action="store_true", help="for a README")
    tune = _command(parts, "tune", leaderboard_tune)
    tune.add_argument("protocol", help="name or file, in the validation years")
    tune.add_argument("entry", help="a method")
    tune.add_argument("options", nargs="*", help="key=[value,value,...]")
    tune.add_argument("--archive", type=Path, default=Path("archives/speedy-t21.zarr"))
    for each, folder in ((run, "leaderboard"), (show, "leaderboard"), (tune, "tuning")):
        each.add_argument("--folder", type=Path, default=Path("evaluation") / folder)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; the return value is the exit code."""
    warnings.filterwarnings("ignore", category=FutureWarning)
    args = parser().parse_args(arguments)
    try:
        args.run_command(args)
    except GapzooError as error:
        ERRORS.print(f"gapzoo: {error}", markup=False)
        return 2
    except KeyboardInterrupt:
        ERRORS.print("gapzoo: stopped; what was written is kept, and the command can go on")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
