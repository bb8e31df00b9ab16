"""From a recipe to a checkpoint: build the data and the module, train, save, write the card."""

from __future__ import annotations

import csv
import json
import zipfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from rich.progress import Progress, track

from gapzoo import checkpoint
from gapzoo.checking import require_devices
from gapzoo.core import GapzooError, MemberGenerator
from gapzoo.core.random import derive_seed
from gapzoo.data.archive import Archive
from gapzoo.data.module import ArchiveDataModule, Reader, hours_of
from gapzoo.diffusion.moments import SecondMoments
from gapzoo.diffusion.single import SingleWeights
from gapzoo.diffusion.zonal import RegressedErrors, ZonalCovariance
from gapzoo.forecasters import Forecaster
from gapzoo.prepare import covariance_of, data_of, module_of, prepare
from gapzoo.recipe import Recipe, dump, load
from gapzoo.tasks.forecast_error import error_covariance, forecast_pairs, mode_errors, within_run
from gapzoo.tasks.recurrence import recurrence
from gapzoo.tasks.settings import beside
from gapzoo.tasks.single_weights import single_weights
from gapzoo.training import train
from gapzoo.training.about import versions
from gapzoo.training.adapt import merged
from gapzoo.training.callbacks import Throughput
from gapzoo.training.module import TrainedModule

__all__ = ["calibrate", "covariance_of", "data_of", "export", "fit", "module_of", "prepare", "save"]

ERROR_FORECASTS = 1000
RECURRENCES = 240
"""Pairs of validation forecasts that the recurrence of errors is measured on."""
EVALUATIONS = 240
"""Validation forecasts that the weights of a single evaluation are measured on."""
MOMENT_STATES = 160
"""Validation states that a prior's second moments are measured on."""
THEN = ", then "
"""Between what a run ran on before it was resumed, and after."""


def fit(recipe: Recipe, run: Path, output: Path, *, resume: bool = False) -> Path:
    """Train by a recipe and save the checkpoint.

    Args:
        recipe: what to train.
        run: run folder: resolved recipe, versions, logs, ``last.ckpt``.
        output: folder of the checkpoint.
        resume: go on from the run's ``last.ckpt``.
    """
    first = rank_zero_only.rank == 0  # type: ignore[attr-defined]
    started = (run / "last.ckpt").exists()
    if started and first and not resume:
        raise GapzooError(f"{run / 'last.ckpt'} exists; resume it, or choose another run folder")
    run.mkdir(parents=True, exist_ok=True)
    if first:
        describe(recipe, run)
    data = data_of(recipe)
    module = prepare(recipe, data, run)
    require_devices(recipe, module)
    if recipe.compile:
        module.live.compile(dynamic=False)  # in place: weights keep their names
    trainer = train(
        module,
        data,
        run,
        max_steps=recipe.max_steps,
        max_minutes=recipe.max_minutes,
        resume=resume and started,
        clip=recipe.clip,
        validate_first=bool(recipe.start) and not (resume and started),
        log_every=recipe.log_every,
        checkpoint_minutes=recipe.checkpoint_minutes,
        devices=recipe.devices,
        num_nodes=recipe.num_nodes,
        strategy=recipe.strategy,
        accelerator=recipe.accelerator,
        use_distributed_sampler=False,
    )
    if not first:
        return output
    if module.sharded:
        return export(run, output)
    clocks = [c.minutes for c in trainer.callbacks if isinstance(c, Throughput)]  # type: ignore[attr-defined]
    return save(recipe, module, data, output, run, trainer.global_step, clocks[0])


def describe(recipe: Recipe, run: Path) -> None:
    """Write the resolved recipe, and what it runs on, to the run folder.

    Where a resumed run goes on with something else, both are written down: ``2.9, then 2.10``.
    """
    before = ran_on(run) if (run / "versions.json").exists() else {}
    now = {key: _and_then(before.get(key), value) for key, value in versions().items()}
    texts = {"recipe.yaml": dump(recipe), "versions.json": json.dumps(now, indent=1) + "\n"}
    for name, text in texts.items():
        part = run / f"{name}.part"
        part.write_text(text)
        part.replace(run / name)


def _and_then(before: str | None, now: str) -> str:
    known = before is None or before.split(THEN)[-1] == now
    return (before or now) if known else f"{before}{THEN}{now}"


def ran_on(run: Path) -> dict[str, str]:
    """What a run ran on, as it wrote down: device, date, git commit, versions.

    Raises:
        GapzooError: where it did not, or the file is damaged.
    """
    path = run / "versions.json"
    try:
        return {str(k): str(v) for k, v in json.loads(path.read_text()).items()}
    except (OSError, ValueError, AttributeError) as error:
        raise GapzooError(
            f"{path}, what the run ran on, cannot be read: {error}; remove it and resume the run"
        ) from None


def scores(run: Path, level: str) -> dict[str, str]:
    """Losses of a run's last validation, for the card, by levels of what they are named."""
    path = run / "metrics.csv"
    if not path.exists():
        return {}
    with path.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["name"].startswith("val/")]
    last = rows[-1]["step"] if rows else ""
    found = [row for row in rows if row["step"] == last]
    return {_told(row["name"], level): f"{float(row['value']):.4f}" for row in found}


def _told(name: str, level: str) -> str:
    """``val/loss_0.1_0.3`` as people say it."""
    if not name.startswith("val/loss"):
        return f"{name.removeprefix('val/').replace('_', ' ')} of an expert (even: 1)"
    limits = name.removeprefix("val/loss").split("_")[1:]
    return "validation loss" + (f", {level} {' to '.join(limits)}" if limits else "")


def export(run: Path, output: Path) -> Path:
    """Save a run's ``last.ckpt`` as a checkpoint, without training on."""
    recipe = read_run(run)
    data = data_of(recipe)
    module = prepare(recipe, data, run)
    state = _read_state(run / "last.ckpt")
    module.load_state_dict(state["state_dict"])
    clocks = state.get("callbacks", {})
    minutes = clocks.get("Throughput", {}).get("minutes", clocks.get("TimeBudget", {}).get("spent"))
    return save(recipe, module, data, output, run, int(state["global_step"]), minutes)


def _read_state(path: Path) -> dict[str, Any]:
    if not zipfile.is_zipfile(path):
        raise GapzooError(f"{path} is missing or damaged; train, or resume the run, first")
    return torch.load(path, weights_only=True, map_location="cpu")


def save(
    recipe: Recipe,
    module: TrainedModule,
    data: ArchiveDataModule,
    output: Path,
    run: Path,
    steps: int,
    minutes: float | None,
) -> Path:
    """Save a trained module's averaged network as a checkpoint.

    Args:
        recipe, module, data: what was trained, on what.
        output: folder of the checkpoint.
        run: run folder, which knows what it ran on and its validation losses.
        steps, minutes: that training took.
    """
    world = data.world
    backbone: Any = module.backbone
    network: Any = merged(backbone)
    parameters = sum(p.numel() for p in network.parameters())
    idle = getattr(network, "idle_parameters", 0)
    training = {
        "parameters": f"{parameters:,}",
        **({"active parameters": f"{parameters - idle:,}"} if idle else {}),
        "steps": steps,
        "samples": f"{steps * recipe.batch_size:,}",
        **({} if minutes is None else {"minutes": round(float(minutes), 1)}),
        "command": _command(recipe),
        **ran_on(run),
    }
    details = {
        "model": recipe.model,
        "arguments": module.arguments,
        "schedule": recipe.schedule,
        "schedule_options": dict(recipe.schedule_options),
        "precision": recipe.precision,
        "shaped": recipe.kind == "prior" and recipe.preconditioning == "climatology",
        "training": training,
        "license": "Apache-2.0",
        "notes": recipe.notes,
        "parent": _parent(recipe),
        "scores": scores(run, module.level),
    }
    made = checkpoint.Checkpoint(recipe.name, recipe.kind, network, world, details)
    if recipe.kind == "forecaster":
        made.extras = _errors(made, data, recipe)
    elif module.denoiser.climatology is not None:  # type: ignore[union-attr]
        made.extras = module.denoiser.climatology.to_tensors()  # type: ignore[union-attr,operator]
    # bfloat16 would round away updates of a low rank below 0.2-0.4 % of a weight
    return checkpoint.save(output, made, dump(recipe), low_precision=not recipe.lora_rank)


def _parent(recipe: Recipe) -> str:
    """Name and hash of the checkpoint that training started from."""
    if not recipe.start:
        return ""
    parent = checkpoint.load(recipe.start)
    return f"{parent.name} (SHA-256 {parent.hash})"


def _command(recipe: Recipe) -> str:
    """By the shipped recipe where it says the same, else by the one beside the weights."""
    shipped = Path("recipes") / f"{recipe.name}.yaml"
    same = shipped.is_file() and load(shipped) == recipe
    return f"gapzoo train {shipped if same else Path('checkpoints') / recipe.name / 'recipe.yaml'}"


def calibrate(
    made: checkpoint.Checkpoint,
    reader: Reader,
    positions: np.ndarray,
    basis: ZonalCovariance | None = None,
    leads: Sequence[int] = (6, 24),
) -> dict[str, torch.Tensor]:
    """Statistics of a forecaster's errors by lead, as its checkpoint keeps them.

    Args:
        made: checkpoint of the forecaster.
        reader: of an archive, in the world whose states the errors are of.
        positions: steps to start from, in years that it was not trained on.
        basis: a prior's covariance, for errors in its modes too.
        leads: hours.
    """
    made.network.eval()
    out: dict[str, torch.Tensor] = {}
    step = made.forecaster_in(reader.world)
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


def _errors(
    made: checkpoint.Checkpoint, data: ArchiveDataModule, recipe: Recipe
) -> dict[str, torch.Tensor]:
    """Error statistics of a forecaster at the leads that it learned, in validation years."""
    positions = data.archive.indices(recipe.validate[0], recipe.validate[1])
    rows = positions[np.linspace(0, len(positions) - 1, ERROR_FORECASTS).astype(int)]
    prior = checkpoint.load(recipe.basis) if recipe.basis else None
    world, basis = (prior.world, prior.covariance) if prior else (data.world, None)
    reader, leads = Reader(data.archive, world), sorted(set(recipe.hours))
    out = calibrate(made, reader, rows, basis, leads)
    if prior is None or basis is None:
        return out
    made.extras = out  # whose errors the weights are under
    few = positions[np.linspace(0, len(positions) - 1, EVALUATIONS).astype(int)]
    for hours in leads:
        weights = _single(made, prior, reader, few, hours)
        out |= {f"error{hours}.single": weights.table, f"error{hours}.single.scale": weights.scale}
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
    step = made.forecaster_in(reader.world)
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


def recalibrate(forecaster: str, prior: str, output: Path | None = None) -> Path:
    """Estimate a forecaster's errors in the modes of a prior, and save its checkpoint with them.

    The archive and the validation years are those of the forecaster's own recipe.
    """
    made, folder = checkpoint.load(forecaster), checkpoint.find(forecaster)
    recipe = load(folder / "recipe.yaml")
    recipe.basis = prior
    made.extras = _errors(made, data_of(recipe), recipe)
    low = made.rounded
    return checkpoint.save(output or folder, made, dump(recipe), low_precision=low)


def read_run(run: Path) -> Recipe:
    """The recipe of a run folder, for resuming it."""
    if not (run / "recipe.yaml").exists():
        raise GapzooError(f"{run} is no run folder: it has no recipe.yaml; start with a recipe")
    return load(run / "recipe.yaml")
