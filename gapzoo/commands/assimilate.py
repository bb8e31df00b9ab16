"""gapzoo assimilate"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from gapzoo.commands import CONSOLE, command, progress_bar


def assimilate(args: argparse.Namespace) -> None:
    """Analyses from a table of observations, by a recipe; goes on where it was stopped."""
    from gapzoo import checkpoint, recipe
    from gapzoo.data.observations import read_observations
    from gapzoo.report import assimilation as report
    from gapzoo.tasks.assimilate import AssimilationRecipe, Run
    from gapzoo.tasks.settings import device_of

    values = recipe.read(args.recipe, args.changes)
    wanted = recipe.typed(AssimilationRecipe, values, str(args.recipe))
    options = {"level_kind": args.level_kind} if args.level_kind else {}
    observations = read_observations(args.observations, **options)
    prior = checkpoint.load(wanted.prior)
    prior.to(device_of(wanted.device))
    run = Run(
        task=_task(wanted, prior),
        recipe=wanted,
        observations=observations,
        folder=args.output or Path("assimilated") / args.recipe.stem,
        forcing=_forcing(wanted, prior.world),
        identity=recipe.dump(wanted) + f"# observations: {_digest(observations.table)}\n",
        attributes={"prior": prior.name, "prior_sha256": prior.hash, "seed": str(wanted.seed)},
    )
    _refuse_unknown(wanted.forcing, run.times)
    with progress_bar() as bar:
        task = bar.add_task("analyses", total=len(run.times))
        run.run(lambda n: bar.advance(task, n))
    page, lines = report.write(run)
    for line in lines:
        CONSOLE.print(line)
    CONSOLE.print(f"analyses written to {run.folder / 'analyses.zarr'}, report to {page}")


def _task(wanted: Any, prior: Any) -> Any:
    """The task of a recipe."""
    from gapzoo import checkpoint
    from gapzoo.forecasters import FORECASTERS, needs_checkpoint
    from gapzoo.tasks.assimilation import Assimilation
    from gapzoo.tasks.flow import ensemble_filter
    from gapzoo.tasks.sampling import Sampling
    from gapzoo.tasks.settings import device_of, measured_error, static_error

    network, world = None, prior.world
    if needs_checkpoint(wanted.forecaster):
        network = checkpoint.load(wanted.forecaster)
        network.to(device_of(wanted.device))
        forecaster = network.forecaster_in(world, prior)
    else:
        forecaster = FORECASTERS.build(wanted.forecaster, world=world)
    error: Any = None
    letkf = None
    if wanted.measured:
        error = measured_error(prior, _errors(wanted, forecaster, world), wanted.inflation)
    elif wanted.form not in ("none", "renoise"):
        static = wanted.static or None
        error = static_error(prior, network, wanted.hours, wanted.inflation, static)
    if wanted.form == "hybrid":
        letkf = ensemble_filter(world, wanted.filter)
    return Assimilation(
        prior=prior.prior,
        world=world,
        sampling=Sampling.of(wanted.sampling),
        forecaster=forecaster,
        form=wanted.form,
        error=error,
        start_sigma=wanted.start_sigma,
        filter=letkf,
        share=wanted.share,
        fading=wanted.fading,
        doubt=wanted.doubt,
        rtps=wanted.rtps,
        learned=wanted.learned,
        kept=wanted.kept,
        centred=wanted.centred,
    )


def _errors(wanted: Any, forecaster: Any, world: Any) -> Any:
    """What the forecaster's own errors add in a cycle, by examples."""
    from gapzoo.data.archive import Archive
    from gapzoo.data.module import Reader
    from gapzoo.tasks.forecast_error import added_errors

    reader = Reader(Archive(wanted.truth), world)
    given = (forecaster, reader, wanted.truth_days, wanted.hours, wanted.measured)
    with progress_bar() as bar:
        task = bar.add_task("errors of the forecaster", total=None)
        return added_errors(*given, lambda n, total: bar.update(task, advance=n, total=total))


def _forcing(wanted: Any, world: Any) -> Any:
    """Forcing anomalies by time: an archive's, or none."""
    if not wanted.forcing:
        return lambda _: None
    import numpy as np

    from gapzoo.core import GapzooError
    from gapzoo.data.archive import Archive
    from gapzoo.data.module import Reader

    reader = Reader(Archive(wanted.forcing), world)

    def anomaly(time: Any) -> Any:
        row = reader.archive.find([time])
        if row[0] < 0:
            raise GapzooError(f"{wanted.forcing} has no forcing of {time}; leave 'forcing' empty")
        return reader.forcing(np.array(row))[0]

    return anomaly


def _refuse_unknown(path: str, times: Any) -> None:
    """Refuse a run whose forcing lacks an analysis, before it starts."""
    from gapzoo.core import GapzooError
    from gapzoo.data.archive import Archive

    if not path:
        return
    known = Archive(path).times
    missing = times[~times.isin(known)]
    if len(missing):
        raise GapzooError(
            f"{path} has no forcing of {missing[0]:%Y-%m-%d %H:%M}; it covers "
            f"{known[0]:%Y-%m-%d} to {known[-1]:%Y-%m-%d}; set 'start' and 'end', or leave "
            "'forcing' empty"
        )


def _digest(table: Any) -> str:
    """Hash of a table."""
    import hashlib

    return hashlib.sha256(table.to_csv(index=False).encode()).hexdigest()[:16]


def add(commands: Any) -> None:
    """Its arguments."""
    run = command(commands, "assimilate", assimilate)
    run.add_argument("recipe", type=Path, help="see recipes/assimilation")
    run.add_argument("changes", nargs="*", help="key=value")
    run.add_argument("--observations", type=Path, required=True, help=".parquet, .csv or .nc")
    run.add_argument("--level-kind", choices=("pressure", "sigma"), help="where the file is silent")
    run.add_argument("--output", type=Path, help="folder of the run (assimilated/RECIPE)")
