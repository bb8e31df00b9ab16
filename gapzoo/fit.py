"""From a recipe to a checkpoint: build the data and the module, train, save, write the card."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
import time
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gapzoo import checkpoint
from gapzoo.core import GapzooError
from gapzoo.core.world import World
from gapzoo.data.module import ArchiveDataModule, Reader
from gapzoo.diffusion import SCHEDULES, DenoisingLoss
from gapzoo.diffusion.zonal import ZonalCovariance
from gapzoo.recipe import Recipe, dump, load
from gapzoo.tasks.forecast_error import error_covariance, forecast_pairs, mode_errors
from gapzoo.training import Optimisation, train
from gapzoo.training.denoisers import ZooDenoiser
from gapzoo.training.module import TrainedModule

ERROR_FORECASTS = 1000


def data_of(recipe: Recipe) -> ArchiveDataModule:
    """The data module that a recipe names."""
    return ArchiveDataModule(
        recipe.archive,
        kind="states" if recipe.kind == "prior" else "pairs",
        variables=recipe.variables or None,
        train=(recipe.train[0], recipe.train[1]),
        validate=(recipe.validate[0], recipe.validate[1]),
        batch_size=recipe.batch_size,
        steps_per_epoch=recipe.steps_per_epoch,
        validation_samples=recipe.validation_samples,
        hours=recipe.hours,
        seed=recipe.seed,
    )


def covariance_of(recipe: Recipe, data: ArchiveDataModule) -> ZonalCovariance | None:
    """The climatological covariance that a recipe's preconditioning needs."""
    if recipe.kind != "prior" or recipe.preconditioning == "scalar":
        return None
    positions = data.archive.indices(recipe.train[0], recipe.train[1])
    count = min(recipe.covariance_states, len(positions))
    rows = positions[np.linspace(0, len(positions) - 1, count).astype(int)]
    reader = Reader(data.archive, data.world)

    def batches(part: np.ndarray) -> Iterator[torch.Tensor]:
        return (reader.state(few) for few in np.array_split(part, -(-len(part) // 200)))

    parts = [batches(part) for part in np.array_split(rows, recipe.covariance_parts)]
    fitted = ZonalCovariance.cross_validated(parts, recipe.covariance_threshold)
    # as a checkpoint keeps it, so that training and its checkpoint agree to the bit
    return ZonalCovariance.from_tensors(fitted.to_tensors(), data.world.shape)


def module_of(
    recipe: Recipe, world: World, climatology: ZonalCovariance | None = None
) -> TrainedModule:
    """The Lightning module that a recipe names, for a world."""
    channels, cond_channels = len(world.channels), world.cond_channels
    common: dict[str, Any] = {
        "channels": channels,
        "cond_channels": cond_channels,
        "architecture": dict(recipe.model_options),
        "precision": recipe.precision,
        "optimisation": Optimisation(
            optimizer=recipe.optimizer,
            peak=recipe.learning_rate,
            warmup=recipe.warmup,
            weight_decay=recipe.weight_decay,
            decay=recipe.ema_decay,
        ),
        "seed": recipe.seed,
    }
    if recipe.kind == "forecaster":
        return _forecaster(recipe, world, common)
    return ZooDenoiser(
        recipe.model,
        schedule=SCHEDULES.build(recipe.schedule, **recipe.schedule_options),
        loss=DenoisingLoss(mean=recipe.noise_mean, std=recipe.noise_std, **_weights(world)),
        cond_dropout=recipe.cond_dropout,
        climatology=climatology,
        **common,
    )


def _forecaster(recipe: Recipe, world: World, common: dict[str, Any]) -> TrainedModule:
    from gapzoo.training.convcast import ConvCast

    change = torch.from_numpy(world.diff_std)[:, None, None] / world.std
    common["architecture"] = {"hours": world.hours, **common["architecture"]}
    return ConvCast(recipe.model, change=change, **_weights(world), **common)


def _weights(world: World) -> dict[str, Any]:
    """Area weights, and point weights that bring whitened errors half-way back to SI units."""
    spread = torch.from_numpy(world.spread)[:, None, None]
    area = torch.from_numpy(world.grid.area_weights).float()
    return {"area_weights": area, "point_weights": (world.std / spread).float()}


def fit(recipe: Recipe, run: Path, output: Path, *, resume: bool = False) -> Path:
    """Train by a recipe and save the checkpoint.

    Args:
        recipe: what to train.
        run: run folder: resolved recipe, versions, logs, ``last.ckpt``.
        output: folder of the checkpoint.
        resume: go on from the run's ``last.ckpt``.
    """
    data = data_of(recipe)
    module = module_of(recipe, data.world, covariance_of(recipe, data))
    if recipe.start and not resume:
        _start(module, recipe.start)
    run.mkdir(parents=True, exist_ok=True)
    (run / "recipe.yaml").write_text(dump(recipe))
    started = time.monotonic()
    trainer = train(
        module,
        data,
        run,
        max_steps=recipe.max_steps,
        max_minutes=recipe.max_minutes,
        resume=resume,
        clip=recipe.clip,
        devices=recipe.devices,
        num_nodes=recipe.num_nodes,
        strategy=recipe.strategy,
        accelerator=recipe.accelerator,
        use_distributed_sampler=False,
    )
    spent = {"minutes of the last part": round((time.monotonic() - started) / 60, 1)}
    return save(recipe, module, data, output, trainer.global_step, spent)


def _start(module: TrainedModule, name: str) -> None:
    """Give the network, and its average, a checkpoint's weights."""
    weights = checkpoint.load(name).network.state_dict()
    for network in (module.denoiser.backbone, module.backbone):  # type: ignore[union-attr]
        try:
            network.load_state_dict(weights)  # type: ignore[union-attr,operator]
        except RuntimeError as error:
            line = " ".join(str(error).split())
            raise GapzooError(f"checkpoint '{name}' holds another network: {line}") from None


def export(run: Path, output: Path) -> Path:
    """Save a run's ``last.ckpt`` as a checkpoint, without training on."""
    recipe = read_run(run)
    data = data_of(recipe)
    module = module_of(recipe, data.world, covariance_of(recipe, data))
    state = _read_state(run / "last.ckpt")
    module.load_state_dict(state["state_dict"])
    minutes = state.get("callbacks", {}).get("TimeBudget", {}).get("spent")
    spent = {} if minutes is None else {"minutes": round(float(minutes), 1)}
    return save(recipe, module, data, output, int(state["global_step"]), spent)


def _read_state(path: Path) -> dict[str, Any]:
    if not zipfile.is_zipfile(path):
        raise GapzooError(f"{path} is missing or damaged; train, or resume the run, first")
    return torch.load(path, weights_only=True, map_location="cpu")


def save(
    recipe: Recipe,
    module: TrainedModule,
    data: ArchiveDataModule,
    output: Path,
    steps: int,
    spent: dict[str, Any],
) -> Path:
    """Save a trained module's averaged network as a checkpoint."""
    world = data.world
    network: Any = module.backbone
    parameters = sum(p.numel() for p in network.parameters())
    training = {
        "parameters": f"{parameters:,}",
        "steps": steps,
        "samples": f"{steps * recipe.batch_size:,}",
        **spent,
        "command": f"gapzoo train recipes/{recipe.name}.yaml",
        **versions(),
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
    }
    made = checkpoint.Checkpoint(recipe.name, recipe.kind, network, world, details)
    if recipe.kind == "forecaster":
        made.extras = _errors(made, data, recipe)
    elif module.denoiser.climatology is not None:  # type: ignore[union-attr]
        made.extras = module.denoiser.climatology.to_tensors()  # type: ignore[union-attr,operator]
    return checkpoint.save(output, made, dump(recipe))


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
        reader: of an archive.
        positions: steps to start from, in years that it was not trained on.
        basis: a prior's covariance, for errors in its modes too.
        leads: hours.
    """
    made.network.eval()
    out: dict[str, torch.Tensor] = {}
    for hours in leads:
        forecasts, truths = forecast_pairs(made.forecaster, reader, positions, hours)
        out[f"error{hours}"] = error_covariance(forecasts - truths).eigenvalues
        if basis is not None:
            found = mode_errors(forecasts, truths, basis)
            out |= {f"error{hours}.zonal": found.eigenvalues, f"error{hours}.gain": found.gain}
    return out


def _errors(
    made: checkpoint.Checkpoint, data: ArchiveDataModule, recipe: Recipe
) -> dict[str, torch.Tensor]:
    """Error statistics of a forecaster at its shortest and longest lead, in validation years."""
    positions = data.archive.indices(recipe.validate[0], recipe.validate[1])
    rows = positions[np.linspace(0, len(positions) - 1, ERROR_FORECASTS).astype(int)]
    basis = checkpoint.load(recipe.basis).covariance if recipe.basis else None
    leads = sorted({min(recipe.hours), max(recipe.hours)})
    return calibrate(made, Reader(data.archive, data.world), rows, basis, leads)


def recalibrate(forecaster: str, prior: str, output: Path | None = None) -> Path:
    """Estimate a forecaster's errors in the modes of a prior, and save its checkpoint with them.

    The archive and the validation years are those of the forecaster's own recipe.
    """
    made, folder = checkpoint.load(forecaster), checkpoint.find(forecaster)
    recipe = load(folder / "recipe.yaml")
    recipe.basis = prior
    made.extras = _errors(made, data_of(recipe), recipe)
    return checkpoint.save(output or folder, made, dump(recipe))


def versions() -> dict[str, str]:
    """Device, date, git commit and the packages that matter."""
    packages = ("gapzoo", "torch", "lightning", "numpy")
    versions = {name: importlib.metadata.version(name) for name in packages}
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else _processor()
    return {
        "device": device,
        "date": str(np.datetime64("today")),
        "git commit": _commit(),
        "versions": ", ".join(f"{k} {v}" for k, v in versions.items()),
    }


def _processor() -> str:
    cpu = Path("/proc/cpuinfo")
    lines = cpu.read_text().splitlines() if cpu.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"CPU, {names[0] if names else platform.processor()}, {torch.get_num_threads()} threads"


def _commit() -> str:
    here = Path(__file__).parent
    done = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=here, capture_output=True, text=True
    )
    return done.stdout.strip() or "unknown"


def read_run(run: Path) -> Recipe:
    """The recipe of a run folder, for resuming it."""
    if not (run / "recipe.yaml").exists():
        raise GapzooError(f"{run} is no run folder: it has no recipe.yaml; start with a recipe")
    return load(run / "recipe.yaml")
