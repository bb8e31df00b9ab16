"""A small world on sigma levels with soundings of it, for tests of real days."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from models import saved, shake
from worlds import grid_of

from gapzoo.checkpoint import Checkpoint
from gapzoo.core import Channels
from gapzoo.core.climatology import Climatology
from gapzoo.core.world import World
from gapzoo.denoisers import DENOISERS
from gapzoo.diffusion.prior import Prior
from gapzoo.tasks.real_day import Sample

TIME = pd.Timestamp("2008-12-08T12")
GRID = grid_of(8, 16)
SIGMA = (0.2, 0.5, 0.9)
NAMES = ("u_component_of_wind", "v_component_of_wind", "temperature", "specific_humidity")
LABELS = [*(f"{n}@{s}" for n in NAMES for s in SIGMA), "surface_pressure"]
MEAN = np.array([*[5.0] * 6, 220.0, 255.0, 285.0, 1e-5, 1e-3, 8e-3, 98000.0])
SPREAD = np.array([*[8.0] * 6, 3.0, 3.0, 3.0, 1e-5, 5e-4, 2e-3, 800.0])


def world() -> World:
    mean, variance = (
        np.broadcast_to(v[None, :, None, None], (1, 13, 8, 16)).astype(np.float32)
        for v in (MEAN, SPREAD**2)
    )
    return World(
        name="sigma", grid=GRID, channels=Channels(LABELS, "sigma"), hours=6,
        climatology=Climatology(mean, variance), diff_std=SPREAD,
        forcing_channels=("sea_surface_temperature",),
        forcing_climatology=np.zeros((1, 1, 8, 16), np.float32), forcing_std=np.ones(1),
        static=np.zeros((2, 8, 16)), static_channels=("geopotential_at_surface", "land_sea_mask"),
        details={"train": ["1979-01-01", "1979-12-31"]},
    )  # fmt: skip


WORLD = world()


def soundings(stations: int = 40, warm: float = 0.0, seed: int = 0) -> pd.DataFrame:
    """Profiles of the climate's mean with noise; ``warm`` degrees above it."""
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(stations):
        place = {"latitude": rng.uniform(-85, 85), "longitude": rng.uniform(0, 360)}
        own = {"time": TIME, "station": f"{number:05d}", "type": "radiosonde", **place}
        values = MEAN + SPREAD * rng.standard_normal(13)
        values[6:9] += warm
        for label, value in zip(LABELS, values, strict=True):
            name, _, sigma = label.partition("@")
            level = 980 * float(sigma) if sigma else np.nan
            height = np.nan if sigma else 0.0
            rows.append({**own, "variable": name, "level": level, "value": value, "height": height})
    return pd.DataFrame(rows)


def checkpoint() -> Checkpoint:
    """Random weights, the same ones every time."""
    sizes = {"channels": 13, "cond_channels": WORLD.cond_channels, "widths": [16], "blocks": [1]}
    sizes |= {"attention": 0, "embedding": 32}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = shake(DENOISERS.build("unet_small", **sizes))
    details = {"model": "unet_small", "arguments": sizes, "schedule": "edm"}
    details |= {"schedule_options": {}, "precision": "fp32", "notes": "A toy."}
    return Checkpoint("unet_small.sigma", "prior", network, WORLD, details)


def prior() -> Prior:
    return checkpoint().prior


def stored(folder: Path) -> Path:
    return saved(checkpoint(), folder)


def sample() -> Sample:
    """States that are the same everywhere, with independent channels."""
    g = torch.Generator().manual_seed(0)
    states = torch.randn(60, 13, 1, 1, generator=g).expand(60, *WORLD.shape)
    return Sample(states[:50], states[50:])
