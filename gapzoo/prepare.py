"""From a recipe to its data and its module, as they are before the first step."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from gapzoo import checkpoint
from gapzoo.core import GapzooError
from gapzoo.core.world import World
from gapzoo.data.archive import Archive
from gapzoo.data.module import ArchiveDataModule, Reader, world_under
from gapzoo.diffusion import SCHEDULES, DenoisingLoss
from gapzoo.diffusion.zonal import ZonalCovariance
from gapzoo.forecasters import NETWORKS
from gapzoo.forecasters.diffcast import DiffCastNetwork
from gapzoo.recipe import ARCHITECTURE, Recipe, inherit, load
from gapzoo.tasks.forecast_error import within_run
from gapzoo.training import Optimisation
from gapzoo.training.adapt import carry, freeze, input_labels, low_rank
from gapzoo.training.denoisers import ZooDenoiser
from gapzoo.training.leading import LeadingModes
from gapzoo.training.module import TrainedModule

CHANGES = 200
"""Changes that the scales of leading modes are measured on."""


def data_of(recipe: Recipe) -> ArchiveDataModule:
    """The data module that a recipe names."""
    if recipe.normalisation == "archive":
        return _data(recipe)
    parent = checkpoint.load(recipe.start)
    whose = f"'normalisation: parent': checkpoint '{parent.name}'"
    own = world_under(Archive(recipe.archive), parent.world, whose, recipe.variables or None)
    return _data(recipe, own)


def _data(recipe: Recipe, world: World | None = None) -> ArchiveDataModule:
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
        hold=recipe.hold,
        world=world,
    )


def covariance_of(
    recipe: Recipe, data: ArchiveDataModule, run: Path | None = None
) -> ZonalCovariance | None:
    """The climatological covariance that a recipe's preconditioning needs.

    Args:
        recipe, data: what is trained.
        run: run folder, which keeps it for resuming, exporting and other processes.
    """
    if recipe.kind != "prior" or recipe.preconditioning == "scalar":
        return None
    if recipe.covariance == "parent":
        return parents_covariance(recipe, data.world)
    tensors = _fit_covariance(recipe, data) if run is None else _kept(recipe, data, run)
    # as a checkpoint keeps it, so that training and its checkpoint agree to the bit
    return ZonalCovariance.from_tensors(tensors, data.world.shape)


def _kept(recipe: Recipe, data: ArchiveDataModule, run: Path) -> dict[str, torch.Tensor]:
    """The covariance in a run folder; the first process puts it there, others wait for it."""
    path, key = run / "covariance.safetensors", _covariance_key(recipe, data.world)
    found = _read_covariance(path, key)
    while found is None and rank_zero_only.rank > 0:  # type: ignore[attr-defined]
        time.sleep(1)
        found = _read_covariance(path, key)
    if found is None:
        found = {k: v.contiguous() for k, v in _fit_covariance(recipe, data).items()}
        part = path.with_suffix(".part")
        save_file(found, part, {"key": key})
        part.replace(path)
    return found


def _covariance_key(recipe: Recipe, world: World) -> str:
    """What a fitted covariance depends on."""
    cut = (recipe.covariance_threshold, recipe.covariance_rest)
    numbers = (recipe.covariance_states, *cut, recipe.covariance_parts)
    parent = recipe.start if recipe.normalisation == "parent" else ""
    what = (world.details["data_hash"], world.channels.labels, list(recipe.train), parent)
    return json.dumps([*what, *numbers])


def _read_covariance(path: Path, key: str) -> dict[str, torch.Tensor] | None:
    try:
        with safe_open(path, "pt") as file:
            if (file.metadata() or {}).get("key") == key:
                return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError):
        return None
    return None


def parents_covariance(recipe: Recipe, world: World) -> ZonalCovariance:
    """That of ``start``; raises GapzooError where it has none of the world's channels and grid."""
    parent = checkpoint.load(recipe.start)
    if parent.covariance is None or parent.world.channels != world.channels:
        raise GapzooError(f"'{parent.name}' has no covariance of these channels; fit one")
    if not parent.world.grid.matches(world.grid):
        raise GapzooError(f"'{parent.name}' has a covariance on another grid; fit one")
    return parent.covariance


def _fit_covariance(recipe: Recipe, data: ArchiveDataModule) -> dict[str, torch.Tensor]:
    positions = data.archive.indices(recipe.train[0], recipe.train[1])
    count = min(recipe.covariance_states, len(positions))
    rows = positions[np.linspace(0, len(positions) - 1, count).astype(int)]
    reader = Reader(data.archive, data.world)

    def batches(part: np.ndarray) -> Iterator[torch.Tensor]:
        return (reader.state(few) for few in np.array_split(part, -(-len(part) // 200)))

    parts = [batches(part) for part in np.array_split(rows, recipe.covariance_parts)]
    cut = (recipe.covariance_threshold, recipe.covariance_rest)
    return ZonalCovariance.cross_validated(parts, *cut).to_tensors()


def module_of(
    recipe: Recipe,
    world: World,
    climatology: ZonalCovariance | None = None,
    leading: LeadingModes | None = None,
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
        return _forecaster(recipe, world, common, leading)
    _refuse(recipe, "a prior", "waves", "modes", "corrected")
    return ZooDenoiser(
        recipe.model,
        schedule=SCHEDULES.build(recipe.schedule, **recipe.schedule_options),
        loss=DenoisingLoss(mean=recipe.noise_mean, std=recipe.noise_std, **loss_weights(world)),
        cond_dropout=recipe.cond_dropout,
        climatology=climatology,
        **common,
    )


def _forecaster(
    recipe: Recipe, world: World, common: dict[str, Any], leading: LeadingModes | None
) -> TrainedModule:
    from gapzoo.training.convcast import ConvCast
    from gapzoo.training.crpscast import CRPSCast
    from gapzoo.training.diffcast import DiffCast

    change = torch.from_numpy(world.diff_std)[:, None, None] / world.std
    common["architecture"] = {"hours": world.hours, **common["architecture"]}
    sizes = {k: common[k] for k in ("channels", "cond_channels")}
    with torch.device("meta"):  # only to see of which kind it is
        network = NETWORKS.build(recipe.model, **sizes, **common["architecture"])
    kinds: dict[str, type[ConvCast]] = {"crpscast": CRPSCast, "diffcast": DiffCast}
    kind = kinds.get(getattr(network, "forecaster", ""), ConvCast)
    if kind is CRPSCast:
        common |= {"waves": recipe.waves, "leading": leading}
    else:
        _refuse(recipe, f"'{recipe.model}' draws nothing, so it", "waves", "modes")
    if recipe.modes and not recipe.basis:
        raise GapzooError("'modes' takes a prior's climatology; name its checkpoint as 'basis'")
    check_corrected(recipe)
    return kind(recipe.model, change=change, **loss_weights(world), **common)


def check_corrected(recipe: Recipe) -> None:
    """Refuse corrections without a prior's modes, and at leads that are not learned."""
    if recipe.corrected and not recipe.basis:
        raise GapzooError("'corrected' takes a prior's climatology; name its checkpoint as 'basis'")
    unknown = sorted(set(recipe.corrected) - set(recipe.hours))
    if unknown:
        raise GapzooError(f"'corrected' names the lead {unknown[0]} h; 'hours' has {recipe.hours}")
    if recipe.stages < 1 or recipe.corrector_steps < 0:
        raise GapzooError(
            f"{recipe.stages} stages with {recipe.corrector_steps} corrector_steps; give 1 or more "
            "and 0 or more"
        )


def _refuse(recipe: Recipe, who: str, *keys: str) -> None:
    for key in keys:
        if getattr(recipe, key):
            raise GapzooError(f"recipe '{recipe.name}': {who} has no '{key}'; leave them out")


def loss_weights(world: World) -> dict[str, Any]:
    """Area weights, and point weights that bring whitened errors half-way back to SI units."""
    spread = torch.from_numpy(world.spread)[:, None, None]
    area = torch.from_numpy(world.grid.area_weights).float()
    return {"area_weights": area, "point_weights": (world.std / spread).float()}


def prepare(recipe: Recipe, data: ArchiveDataModule, run: Path | None = None) -> TrainedModule:
    """The module as it is before the first step, with its parent's weights where it has one."""
    covariance, leading = covariance_of(recipe, data, run), leading_of(recipe, data)
    return adapt(recipe, module_of(recipe, data.world, covariance, leading), data.world)


def leading_of(recipe: Recipe, data: ArchiveDataModule) -> LeadingModes | None:
    """The leading modes that a recipe's loss sees, and their typical change over the data's step.

    Raises:
        GapzooError: where ``basis`` is no prior with modes of the world's channels and grid.
    """
    if not recipe.modes or not recipe.basis:
        return None
    prior, own = checkpoint.load(recipe.basis), data.world
    fits = prior.world.channels == own.channels and prior.world.grid.matches(own.grid)
    if prior.covariance is None or not fits:
        raise GapzooError(f"'{prior.name}' has no modes of these channels on this grid")
    rows = data.archive.indices(recipe.train[0], recipe.train[1])
    rows = within_run(data.archive, rows[:: max(len(rows) // CHANGES, 1)], 1)
    reader = Reader(data.archive, own)
    changes = reader.state(rows + 1) - reader.state(rows)
    return LeadingModes.fit(prior.covariance, recipe.modes, changes)


def adapt(recipe: Recipe, module: TrainedModule, world: World) -> TrainedModule:
    """Give a module its parent's weights, and freeze of it what the recipe says."""
    if not recipe.start or recipe.weights == "new":
        return module
    _carry(checkpoint.load(recipe.start), recipe, module, world)
    if recipe.lora_rank:
        low_rank(module.live, recipe.lora_rank, recipe.lora_layers, recipe.thaw, recipe.seed)
    freeze(module.live, recipe.freeze)
    module.restart_average()
    return module


def _carry(
    parent: checkpoint.Checkpoint, recipe: Recipe, module: TrainedModule, world: World
) -> None:
    wiener = recipe.kind == "prior" and recipe.preconditioning == "climatology"
    change = isinstance(parent.network, DiffCastNetwork)
    theirs = input_labels(parent.world, "covariance.eigenvalues" in parent.extras, change)
    inputs = (theirs, input_labels(world, wiener, change))
    outputs = (parent.world.channels.labels, world.channels.labels)
    try:
        carry(module.live, parent.network.state_dict(), inputs, outputs)
    except GapzooError as error:
        raise GapzooError(f"checkpoint '{parent.name}': {error}") from None


def finetuning(start: str, path: Path, changes: list[str] | None = None) -> Recipe:
    """The recipe of fine-tuning a checkpoint; see :func:`gapzoo.recipe.inherit`."""
    for key in (change.partition("=")[0] for change in changes or []):
        if key in ARCHITECTURE:
            raise GapzooError(f"'{key}' is the parent's, whose weights go on; leave it out")
    folder = checkpoint.find(start)
    parent = load(folder / "recipe.yaml")
    return inherit(load(path, [*(changes or []), f"start={start}"]), parent)
