"""What a checkpoint keeps of itself beside its weights, measured on archives: a prior's second
moments, a forecaster's corrections, errors and weights of draws.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date
from functools import partial
from pathlib import Path

import numpy as np
import torch
from rich.progress import Progress, track

from gapzoo import checkpoint
from gapzoo.core import GapzooError, MemberGenerator
from gapzoo.core.random import derive_seed
from gapzoo.data.archive import Archive
from gapzoo.data.module import ArchiveDataModule, Reader, hours_of
from gapzoo.diffusion.moments import SecondMoments
from gapzoo.diffusion.single import SingleWeights
from gapzoo.diffusion.zonal import RegressedErrors
from gapzoo.forecasters import Forecaster
from gapzoo.prepare import check_corrected, data_of
from gapzoo.recipe import Recipe, dump, load
from gapzoo.tasks.correcting import fit_stages
from gapzoo.tasks.forecast_error import error_covariance, forecast_pairs, mode_errors, within_run
from gapzoo.tasks.recurrence import recurrence
from gapzoo.tasks.settings import beside
from gapzoo.tasks.single_weights import single_weights
from gapzoo.training.corrector import Plan

ERROR_FORECASTS = 1000
RECURRENCES = 240
"""Pairs of validation forecasts that the recurrence of errors is measured on."""
EVALUATIONS = 240
"""Validation forecasts that the weights of a single evaluation are measured on."""
MOMENT_STATES = 160
"""Validation states that a prior's second moments are measured on."""


def calibrate(
    made: checkpoint.Checkpoint,
    reader: Reader,
    positions: np.ndarray,
    prior: checkpoint.Checkpoint | None = None,
    leads: Sequence[int] = (6, 24),
) -> dict[str, torch.Tensor]:
    """Statistics of a forecaster's errors by lead, as its checkpoint keeps them.

    Args:
        made: checkpoint of the forecaster.
        reader: of an archive, in the world whose states the errors are of.
        positions: steps to start from, in years that it was not trained on.
        prior: around a climatology, for errors in its modes too.
        leads: hours.
    """
    made.network.eval()
    out: dict[str, torch.Tensor] = {}
    step = made.forecaster_in(reader.world, prior)
    basis = prior.covariance if prior else None
    for hours in leads:
        with Progress() as bar:
            task = bar.add_task(f"errors over {hours} h", total=len(positions))
            advance = partial(bar.advance, task)
            forecasts, truths, starts = forecast_pairs(step, reader, positions, hours, advance)
        out[f"error{hours}"] = error_covariance(forecasts - truths).eigenvalues
        if basis is not None:
            found = mode_errors(forecasts, truths, basis, starts)
            found.recurrence = _recurrence(step, reader, positions, hours, found)
            out |= {f"error{hours}.{name}": part for name, part in found.parts().items()}
    return out


def _recurrence(
    step: Forecaster, reader: Reader, positions: np.ndarray, hours: int, error: RegressedErrors
) -> torch.Tensor:
    """Correlations of the errors of two steps, one after the other, mode by mode."""
    archive, ahead = reader.archive, hours // hours_of(reader.archive)
    few = positions[np.linspace(0, len(positions) - 1, RECURRENCES).astype(int)]
    few, left = within_run(archive, few, 2 * ahead), []
    for rows in (few, few + ahead):
        with Progress() as bar:
            task = bar.add_task(f"steps of {hours} h in a row", total=len(rows))
            forecasts, truths, _ = forecast_pairs(
                step, reader, rows, hours, partial(bar.advance, task)
            )
        left.append(truths - error.filter(forecasts, lambda b: error.gain.to(b)))
    return recurrence(left[0], left[1], error)


def errors(
    made: checkpoint.Checkpoint, data: ArchiveDataModule, recipe: Recipe
) -> dict[str, torch.Tensor]:
    """What a forecaster's checkpoint keeps: corrections, and statistics of the errors they leave.

    Args:
        made: checkpoint of the forecaster; its extras are replaced.
        data: archive and world.
        recipe: leads, years, the prior in whose modes errors are found.
    """
    archive, prior = data.archive, checkpoint.load(recipe.basis) if recipe.basis else None
    reader = Reader(archive, prior.world if prior else data.world)
    made.extras = _corrections(made, reader, recipe, prior) if recipe.corrected else {}
    positions, leads = (
        archive.indices(recipe.validate[0], recipe.validate[1]),
        sorted(set(recipe.hours)),
    )
    rows = positions[np.linspace(0, len(positions) - 1, ERROR_FORECASTS).astype(int)]
    made.extras |= calibrate(made, reader, rows, prior, leads)
    if prior is None or prior.covariance is None:
        return made.extras
    few, found = positions[np.linspace(0, len(positions) - 1, EVALUATIONS).astype(int)], {}
    for hours in leads:
        weights = _single(made, prior, reader, few, hours)
        found[f"error{hours}.single"] = weights.table
        found[f"error{hours}.single.scale"] = weights.scale
    return made.extras | found


def _corrections(
    made: checkpoint.Checkpoint,
    reader: Reader,
    recipe: Recipe,
    prior: checkpoint.Checkpoint | None,
) -> dict[str, torch.Tensor]:
    """Corrections of a forecaster, fitted to the training years, by lead."""
    if prior is None or prior.covariance is None:
        raise GapzooError("'corrected' leads need a prior's modes; name its checkpoint as 'basis'")
    step, out = made.forecaster_in(reader.world), dict[str, torch.Tensor]()
    years = (
        reader.archive.indices(recipe.train[0], recipe.train[1]),
        reader.archive.indices(recipe.validate[0], recipe.validate[1]),
    )
    plan = Plan(steps=recipe.corrector_steps, seed=recipe.seed)
    for hours in recipe.corrected:
        with Progress() as shown:

            def bar(text: str, total: int, shown: Progress = shown) -> Callable[[int], object]:
                return partial(shown.advance, shown.add_task(text, total=total))

            basis = prior.covariance
            stages, left = fit_stages(step, reader, years, hours, basis, bar, recipe.stages, plan)
        for number, stage in enumerate(stages, 1):
            out |= stage.to_tensors(hours, number)
        scores = made.details.setdefault("scores", {})
        scores[f"squared error left by correction, {hours} h"] = f"{left:.3f}"
    return out


def _single(
    made: checkpoint.Checkpoint,
    prior: checkpoint.Checkpoint,
    reader: Reader,
    positions: np.ndarray,
    hours: int,
) -> SingleWeights:
    """Weights with which one evaluation of the prior makes a draw."""
    generator = MemberGenerator(derive_seed(0, "single", hours), 1)
    step = made.forecaster_in(reader.world, prior)
    error = beside(made.error(hours, prior.covariance), step.stochastic)
    with Progress() as bar:
        task = bar.add_task(f"draws over {hours} h", total=len(positions))
        advance = partial(bar.advance, task)
        return single_weights(
            prior.prior,
            step,
            error,  # type: ignore[arg-type]
            reader,
            positions,
            hours,
            generator,
            advance,
        )


def measure_moments(
    prior: str,
    output: Path | None = None,
    archive: str | None = None,
    validate: Sequence[str] | None = None,
) -> Path:
    """Measure a prior's second moments in its validation years, and save its checkpoint with them.

    Args:
        prior: its checkpoint.
        output: folder; its own where None.
        archive, validate: folder of the data, first and last day; those of the prior's own recipe
            where None.
    """
    made, folder = checkpoint.load(prior), checkpoint.find(prior)
    recipe = load(folder / "recipe.yaml")
    first, last = validate or recipe.validate
    reader = Reader(Archive(archive or recipe.archive), made.world)
    positions = reader.archive.indices(first, last)
    rows = positions[np.linspace(0, len(positions) - 1, MOMENT_STATES).astype(int)]
    parts = np.array_split(rows, MOMENT_STATES // 16)
    batches = ((reader.state(p), reader.condition(p)) for p in track(parts, "second moments"))
    generator = torch.Generator().manual_seed(derive_seed(recipe.seed, "moments"))
    made.extras["moments"] = SecondMoments.fit(made.denoiser, batches, generator).gains
    low = made.rounded
    return checkpoint.save(output or folder, made, dump(recipe), low_precision=low)


def recalibrate(
    forecaster: str,
    prior: str,
    output: Path | None = None,
    corrected: Sequence[int] | None = None,
    stages: int | None = None,
    steps: int | None = None,
) -> Path:
    """Estimate a forecaster's errors in the modes of a prior, and save its checkpoint with them.

    The archive and the years are those of the forecaster's own recipe.

    Args:
        forecaster: its checkpoint.
        prior: that of the prior.
        output: folder, whose name is the checkpoint's; its own where None.
        corrected: leads whose forecasts are corrected, hours; the recipe's where None.
        stages, steps: see ``stages`` and ``corrector_steps`` of a recipe; its own where None.
    """
    made, folder = checkpoint.load(forecaster), checkpoint.find(forecaster)
    recipe = load(folder / "recipe.yaml")
    command = ["gapzoo calibrate", made.name, prior]
    command += [] if corrected is None else ["--correct", *map(str, corrected)]
    command += [] if stages is None else ["--stages", str(stages)]
    command += [] if steps is None else ["--steps", str(steps)]
    recipe.basis = prior
    recipe.corrected = recipe.corrected if corrected is None else list(corrected)
    recipe.stages = recipe.stages if stages is None else stages
    recipe.corrector_steps = recipe.corrector_steps if steps is None else steps
    check_corrected(recipe)
    if output is not None and output.name != made.name:
        made.details["parent"] = f"{made.name} (SHA-256 {made.hash}), the same weights"
        made.name = recipe.name = output.name
        kept = {k: v for k, v in made.details.get("scores", {}).items() if ":" not in k}
        made.details["scores"] = kept  # rows are of the other name
        command += ["--output", f"checkpoints/{made.name}"]
    data = data_of(recipe)
    then = f"{' '.join(command)} (archive {data.archive.hash}, {date.today()})"
    made.details["training"] = {**made.details.get("training", {}), "then": then}
    made.extras = errors(made, data, recipe)
    low = made.rounded
    return checkpoint.save(output or folder, made, dump(recipe), low_precision=low)
