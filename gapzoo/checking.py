"""Everything about a recipe that can be checked without training, and what it will take."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from lightning.pytorch.accelerators import AcceleratorRegistry
from torch.autograd.graph import saved_tensors_hooks

from gapzoo import checkpoint
from gapzoo.core import GapzooError, nearest
from gapzoo.core.world import World
from gapzoo.diffusion.zonal import ZonalCovariance
from gapzoo.prepare import adapt, data_of, module_of, parents_covariance
from gapzoo.recipe import Recipe
from gapzoo.training.devices import require_spreadable, strategy_of
from gapzoo.training.module import TrainedModule

BYTES = 4
"""Of a float32."""


def examine(recipe: Recipe) -> Iterator[str]:
    """Build what a recipe names, and say in lines what it is and how much memory it takes.

    Raises:
        GapzooError: for the first thing that does not fit: archive, periods, channels, leads,
            architecture, schedule, the checkpoints that it names, the number of devices.
    """
    data = data_of(recipe)
    for period in ("train", "validate"):
        data.dataset(period)
    world = data.world
    module = adapt(recipe, module_of(recipe, world, stand_in(recipe, world)), world)
    for named in filter(None, (recipe.basis, recipe.start)):
        checkpoint.load(named)
    if recipe.kind == "prior" and recipe.covariance == "parent":
        parents_covariance(recipe, world)
    require_devices(recipe, module)
    processes = recipe.devices * recipe.num_nodes
    count = sum(p.numel() for p in module.live.parameters())
    moved = sum(p.numel() for p in module.live.parameters() if p.requires_grad)
    yield (
        f"{recipe.name}: {recipe.model}, {count:,} parameters, {moved:,} of them trained, "
        f"{len(world.channels)} channels of {world.name}"
    )
    yield _memory(recipe, module, world, recipe.batch_size // processes)


def require_devices(recipe: Recipe, module: TrainedModule) -> None:
    """Raise GapzooError where a module cannot be trained on the devices that a recipe names."""
    strategy_of(recipe.strategy, recipe.devices, recipe.num_nodes)
    if recipe.strategy == "fsdp":
        require_spreadable(module.live)
    known = {"auto", "gpu", *AcceleratorRegistry.available_accelerators()}
    if recipe.accelerator not in known:
        found = nearest(recipe.accelerator, known)
        raise GapzooError(f"recipe '{recipe.name}': accelerator '{recipe.accelerator}'; {found}")
    processes = recipe.devices * recipe.num_nodes
    if recipe.batch_size % processes:
        raise GapzooError(
            f"recipe '{recipe.name}': batch_size {recipe.batch_size} does not divide by "
            f"{processes} devices"
        )


def stand_in(recipe: Recipe, world: World) -> ZonalCovariance | None:
    """A covariance of the right shape, without looking at the data."""
    if recipe.kind != "prior" or recipe.preconditioning == "scalar":
        return None
    channels, height, width = world.shape
    size, modes = channels * height, width // 2 + 1
    vectors = [torch.zeros(size, 1, dtype=torch.complex64) for _ in range(modes)]
    for vector in vectors:
        vector[0] = 1.0
    return ZonalCovariance(vectors, torch.ones(modes + 1), world.shape)


def _memory(recipe: Recipe, module: TrainedModule, world: World, batch: int) -> str:
    """What a process of training takes, part by part and in all, beside Python and PyTorch."""
    parts = training_parts(module, world, batch)
    if recipe.kind == "prior" and recipe.preconditioning == "climatology":
        channels, height, width = world.shape
        matrix = 8 * (width // 2 + 1) * (channels * height) ** 2
        parts["covariance (at most)"] = matrix
    parts["in all"] = sum(parts.values())
    if "covariance (at most)" in parts and recipe.covariance == "fit":
        parts["before that, fitting the covariance"] = matrix * (recipe.covariance_parts + 1)
    told = ", ".join(f"{name} {size / 1e6:,.0f} MB" for name, size in parts.items())
    return f"memory of a process: {told}"


def training_parts(module: TrainedModule, world: World, batch: int) -> dict[str, int]:
    """Bytes of weights, average, gradients and two moments; of activations; of saving them."""
    parameters = list(module.live.parameters())
    count = sum(p.numel() for p in parameters)
    moved = sum(p.numel() for p in parameters if p.requires_grad)
    return {
        "weights, average and optimiser": BYTES * (2 * count + 3 * moved),
        f"activations of {batch} samples": activations(module, world, batch),
        "a copy while saving": BYTES * (2 * count + 2 * moved),
    }


def activations(module: TrainedModule, world: World, batch: int) -> int:
    """Bytes that a batch's forward pass keeps for the backward pass, from one sample and two.

    What does not grow with the batch, such as weights in low precision, counts once.
    """
    one, two = kept_bytes(module, world, 1), kept_bytes(module, world, 2)
    return one + (batch - 1) * (two - one)


def kept_bytes(module: TrainedModule, world: World, batch: int) -> int:
    """Bytes that PyTorch keeps of a forward pass, beside the module's own tensors, measured."""
    kept: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    own = {t.untyped_storage().data_ptr() for t in [*module.parameters(), *module.buffers()]}
    state = torch.zeros(batch, *world.shape)
    cond = torch.zeros(batch, world.cond_channels, *world.shape[1:])
    with saved_tensors_hooks(note, lambda tensor: tensor):
        output = module.example(state, cond)
        size = sum(n for pointer, n in kept.items() if pointer not in own)
    del output
    return size
