"""gapzoo forecast"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gapzoo.commands import CONSOLE, command, progress_bar


def forecast(args: argparse.Namespace) -> None:
    """Ensemble forecasts, by a recipe; written as they run, and taken up again where stopped."""
    import pandas as pd

    from gapzoo.data.forcing import require
    from gapzoo.report import forecast as report
    from gapzoo.tasks.forecast import ForecastRecipe, Forecasts, starts_of
    from gapzoo.tasks.initial import claim, initial_of
    from gapzoo.tasks.rollout import Unphysical

    wanted, identity = read(ForecastRecipe, args)
    rollout, attributes = put_together(wanted, wanted.initial)
    world, folder = rollout.world, args.output or Path("forecasts") / args.recipe.stem
    initial = initial_of(wanted.initial, world, wanted.perturb)
    sea = sea_of(wanted, world, getattr(initial, "archive", None))
    times = pd.DatetimeIndex(wanted.times)
    for time in times:
        require(sea.at(time), time, time + pd.Timedelta(hours=max(wanted.leads)))
    claim(folder, identity)
    run = Forecasts(rollout, folder, times, wanted.leads, wanted.members, attributes)
    stopped = None
    with progress("steps", len(times) * len(wanted.leads)) as advance:
        for group in run.groups(wanted.group):
            starts = starts_of(group, initial, sea, wanted)
            advance(len(group) * len(run.done(starts)))
            try:
                for frames in run.run(starts):
                    advance(len(frames) * (frames[0].lead in wanted.leads))
            except Unphysical as error:
                stopped = error
                break
    truth = archive_of(wanted.truth) or sea.archive
    page = report.write(run, wanted, truth, "" if stopped is None else str(stopped))
    CONSOLE.print(f"forecasts written to {folder / 'forecast.zarr'}, report to {page}")
    if stopped is not None:
        raise stopped


def read(schema: type, args: argparse.Namespace) -> tuple[Any, str]:
    """The recipe of a command's arguments, and its text with every key."""
    from gapzoo import recipe

    values = recipe.read(args.recipe, args.changes, schema)
    wanted = recipe.typed(schema, values, str(args.recipe))
    return wanted, recipe.dump(wanted)


def put_together(wanted: Any, archive: str) -> tuple[Any, dict[str, str]]:
    """The roll-out that a recipe's settings name, and what its stores say of it.

    Args:
        wanted: ``RolloutSettings``.
        archive: whose world a forecaster without a checkpoint takes.
    """
    from gapzoo import checkpoint
    from gapzoo.forecasters import needs_checkpoint
    from gapzoo.tasks.settings import rollout_of

    prior = checkpoint.load(wanted.prior) if wanted.prior else None
    network = None
    if needs_checkpoint(wanted.forecaster):
        network = checkpoint.load(wanted.forecaster)
    known = [c for c in (prior, network) if c is not None]
    world = known[0].world if known else _world(archive)
    attributes = {"seed": str(wanted.seed), "forecaster": wanted.forecaster}
    for made in known:
        attributes |= {made.kind: made.name, f"{made.kind}_sha256": made.hash}
    return rollout_of(wanted, prior, network, world), attributes


def _world(archive: str) -> Any:
    from gapzoo.data.archive import Archive
    from gapzoo.data.module import world_of

    return world_of(Archive(archive))


def archive_of(path: str) -> Any:
    """An archive by its path; None where that is empty."""
    from gapzoo.data.archive import Archive

    return Archive(path) if path else None


def sea_of(wanted: Any, world: Any, own: Any = None, **settings: Any) -> Any:
    """The sea surface of a recipe, from ``forcing`` or the archive of the initial states."""
    from gapzoo.tasks.sea import SeaSurface

    return SeaSurface(wanted.sst, world, archive_of(wanted.forcing) or own, **settings)


@contextmanager
def progress(name: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar while a task runs; gives a function that is called with what was done."""
    with progress_bar() as bar:
        task = bar.add_task(name, total=total)
        yield lambda count: bar.advance(task, count)


def arguments(parser: argparse.ArgumentParser, recipes: str, output: str) -> None:
    """Recipe, changes and folder."""
    parser.add_argument("recipe", type=Path, help=f"see recipes/{recipes}")
    parser.add_argument("changes", nargs="*", help="key=value")
    parser.add_argument("--output", type=Path, help=f"folder of the run ({output}/RECIPE)")


def add(commands: Any) -> None:
    """Its arguments."""
    arguments(command(commands, "forecast", forecast), "forecast", "forecasts")
