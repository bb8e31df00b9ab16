"""Tiny models trained on a tiny archive, which tests of checkpoints, commands and boards share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from worlds import toy_archive

from gapzoo import checkpoint
from gapzoo.data.archive import Archive
from gapzoo.data.module import Reader, world_of
from gapzoo.denoisers import DENOISERS
from gapzoo.diffusion.zonal import ZonalCovariance
from gapzoo.forecasters import NETWORKS

TINY = {"widths": [16], "blocks": [1], "attention": 0, "embedding": 32}


def recipe_text(archive: Path, **changes: Any) -> str:
    """A recipe that trains in a second."""
    values = {
        "name": "unet_small.toy",
        "model": "unet_small",
        "model_options": TINY,
        "archive": str(archive),
        "train": ["1979-01-01", "1979-12-31"],
        "validate": ["1980-01-01", "1980-06-30"],
        "batch_size": 4,
        "steps_per_epoch": 4,
        "validation_samples": 8,
        "max_steps": 8,
        "warmup": 2,
        "ema_decay": 0.5,
        "covariance_states": 200,
        "accelerator": "cpu",
    }
    return "".join(f"{k}: {v}\n" for k, v in (values | changes).items())


def shake(network: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Weights that are nowhere zero, so that outputs depend on all of them."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in network.parameters():
            p.add_(0.05 * torch.randn(p.shape, generator=g))
    return network.eval().requires_grad_(False)


def toy_prior(
    archive: Archive, variables: list[str] | None = None, wiener: bool = False
) -> checkpoint.Checkpoint:
    """A prior with random weights for an archive's world, maybe around its Wiener filter."""
    world = world_of(archive, variables)
    channels, cond = len(world.channels), world.cond_channels
    extras = zonal(archive, variables).to_tensors() if wiener else {}
    arguments = {"channels": channels, "cond_channels": cond + channels * wiener, **TINY}
    network = shake(DENOISERS.build("unet_small", **arguments))
    details = {"model": "unet_small", "arguments": arguments, "schedule": "edm"}
    details |= {"schedule_options": {}, "precision": "fp32", "notes": "A toy."}
    return checkpoint.Checkpoint("unet_small.toy", "prior", network, world, details, extras)


def zonal(archive: Archive, variables: list[str] | None = None) -> ZonalCovariance:
    """Climatological covariance of an archive's states."""
    reader = Reader(archive, world_of(archive, variables))
    return ZonalCovariance.fit([reader.state(np.arange(365))])


def toy_forecaster(
    archive: Archive, variables: list[str] | None = None, model: str = "convcast_small"
) -> checkpoint.Checkpoint:
    """A forecasting network with random weights, near persistence, errors of 0.3 at 24 h."""
    world = world_of(archive, variables)
    arguments = {"channels": len(world.channels), "cond_channels": world.cond_channels, **TINY}
    network = shake(NETWORKS.build(model, **arguments), seed=1)
    network.set_scale(torch.full((len(world.channels),), 0.03))
    details = {"model": model, "arguments": arguments, "precision": "fp32"}
    details |= {"schedule": "edm", "schedule_options": {}}
    height, width = world.grid.shape
    errors = {"error24": torch.full((len(world.channels), height, width // 2 + 1), 0.09)}
    return checkpoint.Checkpoint(f"{model}.toy", "forecaster", network, world, details, errors)


def saved(made: checkpoint.Checkpoint, folder: Path) -> Path:
    """Saved in full precision."""
    return checkpoint.save(folder, made, "name: toy\n", low_precision=False)


def toy(path: Path, **arguments: Any) -> Archive:
    """Two daily years; the first trains."""
    return toy_archive(path, **arguments)
