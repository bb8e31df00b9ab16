"""gapzoo simulate"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from gapzoo.commands import CONSOLE, command
from gapzoo.commands.forecast import archive_of, arguments, progress, put_together, read, sea_of


def simulate(args: argparse.Namespace) -> None:
    """A climate of decades to millennia, by a recipe; recorded as it runs, taken up again."""
    from gapzoo.report import climate as report
    from gapzoo.tasks.climate import ClimateRecipe, Simulation
    from gapzoo.tasks.climate_scores import Record
    from gapzoo.tasks.initial import claim
    from gapzoo.tasks.rollout import Unphysical

    wanted, identity = read(ClimateRecipe, args)
    archive = wanted.initial or wanted.forcing or wanted.reference
    rollout, attributes = put_together(wanted, archive)
    folder = args.output or Path("simulations") / args.recipe.stem
    claim(folder, identity)
    recorder = _recorder(wanted, rollout.world, folder, attributes)
    initial = _initial(wanted, rollout)
    own = getattr(initial, "archive", None) or archive_of(wanted.reference)
    sea = sea_of(wanted, rollout.world, own, offset=wanted.offset)
    stopped = None
    with progress("months", recorder.months) as advance:
        try:
            Simulation(rollout, recorder, initial, sea, wanted).run(advance)
        except Unphysical as error:
            stopped = error
    if recorder.done:
        other = _reference(wanted, rollout.world, folder.parent)
        shared = sea.at(recorder.start) if wanted.sst == "observed" else None
        run = Record(folder, rollout.world)
        page = report.write(run, wanted, other, shared, "" if stopped is None else str(stopped))
        CONSOLE.print(f"{recorder.done} months recorded in {folder}, report in {page}")
    if stopped is not None:
        raise stopped


def _recorder(wanted: Any, world: Any, folder: Path, attributes: dict[str, str]) -> Any:
    import pandas as pd

    from gapzoo.tasks.record import Recorder

    return Recorder(
        folder,
        world,
        pd.Timestamp(wanted.start),
        wanted.months,
        wanted.members,
        wanted.hours,
        daily=wanted.daily,
        daily_months=round(wanted.daily_years * 12),
        attributes=attributes,
    )


def _initial(wanted: Any, rollout: Any) -> Any:
    """States to start from: an archive's, analyses, or the prior's own."""
    from gapzoo.tasks.initial import Drawn, initial_of
    from gapzoo.tasks.sampling import Sampling

    if wanted.initial:
        return initial_of(wanted.initial, rollout.world, wanted.perturb)
    return Drawn(rollout.prior, rollout.world, Sampling())


def _reference(wanted: Any, world: Any, beside: Path) -> Any:
    """The record of the reference's years, made where it is not there yet; runs share it."""
    if not wanted.reference:
        return None
    from gapzoo.tasks.climate import months_of, refer
    from gapzoo.tasks.climate_scores import Record
    from gapzoo.tasks.record import Recorder

    archive = archive_of(wanted.reference)
    first, months = months_of(wanted.reference_period)
    made = f"{archive.hash}-{first:%Y%m}-{months}-{wanted.hours}h"
    # anomalies of the record are from the world's own climatology
    folder = beside / f"reference-{made}-{world.details.get('data_hash', world.name)}"
    recorder = Recorder(folder, world, first, months, 1, wanted.hours)
    with progress("months of the reference", months) as advance:
        advance(recorder.done)
        refer(recorder, archive, advance)
    return Record(folder, world)


def add(commands: Any) -> None:
    """Its arguments."""
    arguments(command(commands, "simulate", simulate), "climate", "simulations")
