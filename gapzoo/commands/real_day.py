"""gapzoo real-day"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from gapzoo.commands import CONSOLE, command


def real_day(args: argparse.Namespace) -> None:
    """Real soundings, or a real state, under a prior of a simulator; tables and a page."""
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    from gapzoo import checkpoint
    from gapzoo.core import GapzooError
    from gapzoo.report import real_day as report
    from gapzoo.tasks.real_state import RealState, read_state

    if args.soundings is None and args.state is None:
        raise GapzooError("nothing to do; give --soundings FILE.bufr, --state FILE.nc, or both")
    prior = checkpoint.load(args.prior)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=CONSOLE) as bar:
        task = bar.add_task("reading")

        def done(name: str) -> None:
            bar.update(task, description=f"done: {name}")

        day = _soundings(args, prior, done) if args.soundings else None
        state = None
        if args.state:
            truth, time = read_state(args.state, prior.world)
            options = {"sample": _sample(args, prior, time), "fractions": tuple(args.fractions)}
            state = RealState(
                truth, time, prior.world, prior.prior, **options, **_common(args, done)
            ).run()
    if day is not None:
        _show("withheld soundings: rms over that of the simulator's climatology", day.table())
        for name, number in report.counts(day):
            CONSOLE.print(f"{number:>8} {name}")
    if state is not None:
        for fraction in state.fractions:
            title = f"from {fraction:.0%} of the columns: rms error over that of the climatology"
            _show(title, state.table().loc[fraction])
    CONSOLE.print(f"report written to {report.write(args.output / 'report.html', day, state)}")


def _common(args: argparse.Namespace, done: Any) -> dict[str, Any]:
    from gapzoo.tasks.sampling import Sampling

    sampling = Sampling(steps=args.steps)
    return {"sampling": sampling, "members": args.members, "seed": args.seed, "progress": done}


def _soundings(args: argparse.Namespace, prior: Any, done: Any) -> Any:
    import pandas as pd

    from gapzoo.data.observations import read_observations
    from gapzoo.tasks.real_day import RealDay
    from gapzoo.tasks.soundings import Soundings

    observations = read_observations(args.soundings)
    middle = observations.table["time"].median().round("h")
    time = pd.Timestamp(args.time) if args.time else middle
    own = Soundings.of(observations, prior.world, time, share=args.withhold, seed=args.seed)
    own.observations.write(_folder(args) / "soundings.parquet")
    sample, forcing = _sample(args, prior, time), _forcing(args, prior, time)
    day = RealDay(own, prior.prior, sample=sample, forcing=forcing, **_common(args, done)).run()
    parts = [v.table.assign(method=name) for name, v in day.verdicts.items()]
    pd.concat(parts).to_parquet(_folder(args) / "withheld.parquet", index=False)
    return day


def _folder(args: argparse.Namespace) -> Path:
    args.output.mkdir(parents=True, exist_ok=True)
    return Path(args.output)


def _sample(args: argparse.Namespace, prior: Any, time: Any) -> Any:
    """States of the season for optimal interpolation; None where there is no archive."""
    if not args.archive:
        return None
    import numpy as np

    from gapzoo.data.archive import Archive
    from gapzoo.data.module import Reader
    from gapzoo.tasks.real_day import Sample, seasonal

    reader = Reader(Archive(args.archive), prior.world)
    train = reader.archive.indices(*prior.world.details["train"])
    rows = np.array(list(seasonal(reader.archive.times, train, time)))
    count, members = min(args.samples, len(rows) // 2), args.members
    chosen = np.linspace(0, len(rows) - 1, count).astype(int)
    others = np.setdiff1d(np.arange(len(rows)), chosen)
    held = others[np.linspace(0, len(others) - 1, members).astype(int)]
    return Sample(reader.state(rows[chosen]), reader.state(rows[held]))


def _forcing(args: argparse.Namespace, prior: Any, time: Any) -> Any:
    """Forcing anomalies of the time, where the archive has them."""
    if not args.archive:
        return None
    import numpy as np

    from gapzoo.data.archive import Archive
    from gapzoo.data.module import Reader

    reader = Reader(Archive(args.archive), prior.world)
    row = reader.archive.find([time], method="nearest", tolerance="6h")
    return reader.forcing(np.array(row))[0] if row[0] >= 0 else None


def _show(title: str, table: Any) -> None:
    from rich.box import SIMPLE
    from rich.table import Table

    from gapzoo.core import VARIABLES

    shown = Table(title=title, box=SIMPLE, pad_edge=False, padding=(0, 1, 0, 0))
    shown.add_column("", no_wrap=True)
    for name in map(str, table.columns):
        label = VARIABLES[name].short if name in VARIABLES else name.replace("spread/error", "s/e")
        shown.add_column(label, justify="right", no_wrap=True)
    for key, row in zip(table.index, table.to_numpy(), strict=True):
        shown.add_row(str(key), *("-" if value != value else f"{value:.3f}" for value in row))
    CONSOLE.print(shown)


def add(commands: Any) -> None:
    """Its arguments."""
    run = command(commands, "real-day", real_day)
    run.add_argument("--soundings", type=Path, help="radiosondes: .bufr, or any observation table")
    run.add_argument("--state", type=Path, help=".nc on pressure levels, WeatherBench 2 names")
    run.add_argument("--prior", default="unet_small.speedy-t21-v4", help="checkpoint")
    run.add_argument("--archive", help="for optimal interpolation and the day's forcing")
    run.add_argument("--samples", type=int, default=500, help="states of its covariance (500)")
    run.add_argument("--time", help="of the analysis (the soundings' own)")
    run.add_argument("--withhold", type=float, default=0.2, help="share of the stations (0.2)")
    run.add_argument("--fractions", type=float, nargs="+", default=[0.01, 0.05, 0.1], metavar="F")
    run.add_argument("--members", type=int, default=16, help="(16)")
    run.add_argument("--steps", type=int, default=16, help="sampler steps (16)")
    run.add_argument("--seed", type=int, default=0, help="(0)")
    run.add_argument("--output", type=Path, default=Path("real-day"), help="folder (real-day)")
