"""gapzoo seasonal"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from gapzoo.commands import CONSOLE, command
from gapzoo.commands.forecast import archive_of, arguments, progress, put_together, read, sea_of


def seasonal(args: argparse.Namespace) -> None:
    """Seasonal forecasts of several years, by a recipe; cross-validated, taken up again."""
    from gapzoo.tasks.forecast import starts_of
    from gapzoo.tasks.initial import claim, initial_of
    from gapzoo.tasks.rollout import Unphysical
    from gapzoo.tasks.seasonal import SeasonalRecipe, Seasons

    wanted, identity = read(SeasonalRecipe, args)
    rollout, attributes = put_together(wanted, wanted.initial)
    folder = args.output or Path("seasons") / args.recipe.stem
    initial = initial_of(wanted.initial, rollout.world, wanted.perturb)
    own = getattr(initial, "archive", None)
    settings = {"known_days": wanted.known_days, "eofs": wanted.eofs}
    sea = sea_of(wanted, rollout.world, own, **settings)
    claim(folder, identity)
    run = Seasons(rollout, folder, wanted.times, wanted.months, wanted.members, attributes)
    stopped = None
    left = run.left(wanted.group)
    with progress("months", wanted.months * sum(map(len, left))) as advance:
        for group in left:
            try:
                run.run(starts_of(group, initial, sea, wanted, "seasonal"), advance)
            except Unphysical as error:
                stopped = error
                CONSOLE.print(f"starts of {group[0]:%Y-%m-%d} and beside: {error}")
    why, truth = str(stopped or ""), archive_of(wanted.truth) or sea.archive
    page = _report(run, wanted, truth, args.against, why)
    CONSOLE.print(f"monthly means written to {folder / 'monthly.zarr'}, report to {page}")
    if stopped is not None:
        raise stopped


def _report(run: Any, wanted: Any, truth: Any, others: list[Path], stopped: str) -> Path:
    """Scores against the truth, beside other runs and persistence."""
    from gapzoo.report import seasonal as report
    from gapzoo.tasks.hindcast import days_of, nino_of, read_months
    from gapzoo.tasks.sea import SeaSurface
    from gapzoo.tasks.seasonal import truth_months, unbroken

    world = run.rollout.world
    channels = run.diagnostics.channels
    entries = {run.folder.name: read_months(run.folder, channels)}
    for folder in others:
        entries.setdefault(folder.name, read_months(folder, channels))
    truths, nino, told = {}, None, ""
    if truth is not None:
        every = [t for t in run.times if all(t in months for months in entries.values())]
        whole = [t for t in every if unbroken(truth, t, wanted.months)]
        for time in whole:
            truths[time] = truth_months(truth, world, time, wanted.months, wanted.hours)
        told = _left_out([t for t in every if t not in truths], truth)
        observed = SeaSurface("observed", world, truth).at(run.times[0])
        nino = nino_of(world, observed, wanted.months)
    days = days_of(entries, truths, nino)
    text = (
        f"{len(run.times)} starts, {wanted.members} members, {wanted.months} months in steps of "
        f"{wanted.hours} h; prior {wanted.prior or 'none'}, forecaster {wanted.forecaster}, "
        f"{wanted.sampling}, SST {wanted.sst}, known {wanted.known_days:g} days before.{told}"
    )
    return report.write(run.folder, text, days, world, tuple(channels.labels), stopped)


def _left_out(times: list[Any], truth: Any) -> str:
    if not times:
        return ""
    days = ", ".join(f"{t:%Y-%m-%d}" for t in times)
    return f" Without scores, as the truth in {truth.path} goes over to another run: {days}."


def add(commands: Any) -> None:
    """Its arguments."""
    parser = command(commands, "seasonal", seasonal)
    arguments(parser, "seasonal", "seasons")
    parser.add_argument("--against", type=Path, nargs="*", default=[], help="folders of other runs")
