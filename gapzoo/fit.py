"""From a recipe to a checkpoint: build the data and the module, train, save, write the card."""

from __future__ import annotations

import csv
import json
import zipfile
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from gapzoo import checkpoint
from gapzoo.checking import require_devices
from gapzoo.core import GapzooError
from gapzoo.data.module import ArchiveDataModule
from gapzoo.measure import errors
from gapzoo.prepare import covariance_of, data_of, module_of, prepare
from gapzoo.recipe import Recipe, dump, load
from gapzoo.training import train
from gapzoo.training.about import versions
from gapzoo.training.adapt import merged
from gapzoo.training.callbacks import Throughput
from gapzoo.training.module import TrainedModule

__all__ = ["covariance_of", "data_of", "export", "fit", "module_of", "prepare", "save"]

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
        made.extras = errors(made, data, recipe)
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


def read_run(run: Path) -> Recipe:
    """The recipe of a run folder, for resuming it."""
    if not (run / "recipe.yaml").exists():
        raise GapzooError(f"{run} is no run folder: it has no recipe.yaml; start with a recipe")
    return load(run / "recipe.yaml")
