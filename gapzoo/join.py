"""Two priors joined by noise level: one's network below a level, the other's above it.

Both must mean the same by a state, a condition and a network's output: channels, grid,
climatology, forcings, covariance, schedule. Weights are kept as they are.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gapzoo import checkpoint
from gapzoo.checkpoint import Checkpoint
from gapzoo.core import GapzooError
from gapzoo.core.world import World
from gapzoo.denoisers.stages import Stages
from gapzoo.diffusion.moments import HIGHEST, LEVELS, LOWEST
from gapzoo.recipe import Recipe, dump, load

ALIKE = ("schedule", "schedule_options", "precision", "shaped")
"""Of a checkpoint's details; they belong to the denoiser around the networks."""


def join(name: str, low: str, high: str, at: float, output: Path | None = None) -> Path:
    """Make a checkpoint of two, and save it.

    Args:
        name: of the new one.
        low, high: checkpoints of priors, that of lower noise first.
        at: noise-to-signal ratio up to which ``low`` is asked.
        output: its folder; ``checkpoints/NAME`` where None.

    Raises:
        GapzooError: where they don't go together, naming what differs.
    """
    below, above = checkpoint.load(low), checkpoint.load(high)
    _refuse_unlike(below, above)
    made = joined(name, below, above, at)
    made.details["training"]["command"] = f"gapzoo join {name} {low} {high} --at {at:g}"
    recipe = _recipe(made, load(checkpoint.find(low) / "recipe.yaml"), low)
    folder = output or Path("checkpoints") / name
    return checkpoint.save(folder, made, dump(recipe), low_precision=made.rounded)


def joined(name: str, low: Checkpoint, high: Checkpoint, at: float) -> Checkpoint:
    """The checkpoint of two that go together; see :func:`join`."""
    sizes = ("channels", "cond_channels")
    arguments = {k: low.details["arguments"][k] for k in sizes}
    own = [
        {"model": one.details["model"]}
        | {k: v for k, v in one.details["arguments"].items() if k not in sizes}
        for one in (low, high)
    ]
    arguments |= {"networks": own, "edges": [at]}
    network = Stages(**arguments)
    for stage, one in zip(network.networks, (low, high), strict=True):
        stage.load_state_dict(one.network.state_dict())
    details = {
        "model": "stages",
        "arguments": arguments,
        **{key: low.details[key] for key in ALIKE if key in low.details},
        "training": _training(network),
        "license": low.details.get("license", "Apache-2.0"),
        "notes": f"{low.name} up to a noise-to-signal ratio of {at:g}, {high.name} above it.",
        "parent": ", ".join(f"{one.name} (SHA-256 {one.hash})" for one in (low, high)),
    }
    extras = {k: v for k, v in low.extras.items() if k.startswith("covariance.")}
    network.eval().requires_grad_(False)
    world = _world(low.world, high.world)
    return Checkpoint(name, "prior", network, world, details, extras | _moments(low, high, at))


def _refuse_unlike(low: Checkpoint, high: Checkpoint) -> None:
    """Raise GapzooError where two checkpoints are not priors of one world and preconditioning."""
    for one in (low, high):
        if one.kind != "prior":
            raise GapzooError(f"checkpoint '{one.name}' is a {one.kind}; join two priors")
    low.world.require(high.world, f"checkpoint '{high.name}'")
    pairs: dict[str, tuple[Any, Any]] = {
        key: (low.details.get(key), high.details.get(key)) for key in ALIKE
    }
    pairs["forcing channels"] = (low.world.forcing_channels, high.world.forcing_channels)
    pairs |= {k: (_constants(low)[k], _constants(high)[k]) for k in _constants(low)}
    for what, (mine, theirs) in pairs.items():
        if not _same(mine, theirs):
            shown = f" ({theirs}, not {mine})" if what in (*ALIKE, "forcing channels") else ""
            raise GapzooError(
                f"checkpoint '{high.name}' has another {what}{shown} than '{low.name}'; train one "
                "from the other, with 'covariance: parent' and 'normalisation: parent'"
            )


def _constants(one: Checkpoint) -> dict[str, Any]:
    """Arrays that a denoiser computes with beside its network."""
    world = one.world
    covariance = {k: v for k, v in one.extras.items() if k.startswith("covariance.")}
    return {
        "climatology": (
            world.climatology.mean_coefficients,
            world.climatology.variance_coefficients,
        ),
        "climatology of the forcing": (world.forcing_climatology, world.forcing_std),
        "static fields": (world.static_channels, world.static),
        "covariance": [(k, covariance[k]) for k in sorted(covariance)],
    }


def _same(mine: Any, theirs: Any) -> bool:
    """Whether two values, or all in them, are alike to the bit."""
    if isinstance(mine, Tensor | np.ndarray):
        return np.array_equal(np.asarray(mine), np.asarray(theirs))
    if isinstance(mine, tuple | list):
        pairs = zip(mine, theirs, strict=False)
        return len(mine) == len(theirs) and all(_same(a, b) for a, b in pairs)
    return bool(mine == theirs)


def _world(low: World, high: World) -> World:
    """That of the first, trained on what either was."""
    details = {**low.details}
    hashes = [one.details["data_hash"] for one in (low, high) if "data_hash" in one.details]
    periods = [one.details["train"] for one in (low, high) if "train" in one.details]
    if hashes:
        details["data_hash"] = ", ".join(dict.fromkeys(hashes))
    if periods:
        details["train"] = [min(p[0] for p in periods), max(p[1] for p in periods)]
    return dataclasses.replace(low, details=details)


def _moments(low: Checkpoint, high: Checkpoint, at: float) -> dict[str, Tensor]:
    """Each level's second moments from the network that is asked there; none where one has none."""
    if any("moments" not in one.extras for one in (low, high)):
        return {}
    below = torch.from_numpy(np.geomspace(LOWEST, HIGHEST, LEVELS) <= at)[:, None]
    return {"moments": torch.where(below, low.extras["moments"], high.extras["moments"])}


def _training(network: Stages) -> dict[str, Any]:
    count = sum(p.numel() for p in network.parameters())
    return {
        "parameters": f"{count:,}",
        "active parameters": f"{count - network.idle_parameters:,}",
    }


def _recipe(made: Checkpoint, parent: Recipe, low: str) -> Recipe:
    """How such networks would be trained together: the first one's, around its covariance."""
    options = {k: made.details["arguments"][k] for k in ("networks", "edges")}
    return dataclasses.replace(
        parent,
        name=made.name,
        model=made.details["model"],
        model_options=options,
        start=low,
        weights="new",
        covariance="fit" if made.covariance is None else "parent",
        normalisation="parent",
        freeze=[],
        lora_rank=0,
        notes=made.details["notes"],
    )
