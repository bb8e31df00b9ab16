"""A world of whole columns, and rows made of scores on it, for tests of boards and their page."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from worlds import flat_world

from gapzoo.core import Channels
from gapzoo.core.climatology import Climatology
from gapzoo.core.world import World
from gapzoo.leaderboard import rows
from gapzoo.leaderboard.protocol import Protocol
from gapzoo.leaderboard.scores import Scores

SIGMA = (0.3, 0.6, 0.95)
COLUMN = ("u_component_of_wind", "temperature", "specific_humidity")
MEMBERS, CASES = 5, 6


def columns_world() -> World:
    """Three sigma levels of u, T, q over a slope, with a climatology of sensible columns."""
    labels = [f"{name}@{sigma}" for name in COLUMN for sigma in SIGMA]
    mean = np.array([20, 10, 2, 230, 265, 288, 1e-4, 2e-3, 8e-3, 98000.0])
    std = np.array([5, 4, 3, 3, 3, 4, 3e-5, 5e-4, 1e-3, 700.0])
    shape = np.ones((1, 10, 6, 12))
    coefficients = [(x[None, :, None, None] * shape).astype(np.float32) for x in (mean, std**2)]
    land = (np.arange(72).reshape(6, 12) % 5 == 0).astype(float)
    return dataclasses.replace(
        flat_world(10, 6, 12),
        channels=Channels([*labels, "surface_pressure"], "sigma"),
        climatology=Climatology(*coefficients),
        static=np.stack([np.linspace(0, 9000, 72).reshape(6, 12), land]),
        static_channels=("geopotential_at_surface", "land_sea_mask"),
    )


def row(entry: str, track: str, error: float, members: int = MEMBERS) -> dict:
    """A row whose errors are white, of ``error`` climatological spreads."""
    world, g = columns_world(), torch.Generator().manual_seed(0)
    settings = {"analysis": ("0.01", "0.1", "0.25"), "weather": ("24", "48", "72")}[track]
    times = pd.date_range("2006-01-01", periods=CASES, freq="30D")
    found = {}
    for n, setting in enumerate(settings):
        scores = Scores(world)
        for time in times:
            truth = torch.randn(world.shape, generator=g)
            drawn = torch.randn(members, *world.shape, generator=g)
            scores.add(truth + error * (n + 1) * drawn, truth, time)
        found[setting] = scores.summary(maps=n != 1)
    protocol = Protocol(f"{track}-toy", track, world="flat", cases=CASES, members=MEMBERS)
    return {
        "name": entry,
        "entry": entry,
        "protocol": protocol.name,
        "protocol_hash": protocol.hash,
        "archive_hash": "0123",
        "settings": dataclasses.asdict(protocol),
        "cases": CASES,
        "members": MEMBERS,
        "initial_times": [f"{t:%Y-%m-%dT%H}" for t in times],
        "grid": rows._grid(world),
        "scores": found,
        "cpu_seconds": 100 * error,
        "scoring_seconds": 1.0,
        "device": "CPU, a test",
        "date": "2026-01-01",
    }


def write_board(folder: Path) -> Path:
    """Two protocols: analysis of three entries, weather of two, one of them deterministic."""
    for entry, error in (("gap", 0.3), ("optimal_interpolation", 0.31), ("climatology", 1.0)):
        rows.save(row(entry, "analysis", error), folder)
    rows.save(row("gap", "weather", 0.2), folder)
    rows.save(row("persistence", "weather", 0.5, members=1), folder)
    return folder
