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
from gapzoo.leaderboard.scores import Scores, packed

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
        "wall_seconds": 40.0,
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


def seasonal_row(entry: str, skill: float) -> dict:
    """Three-month means: scores by words, correlation maps with the land missing, p-values."""
    draws, shape = np.random.default_rng(len(entry)), (6, 12)
    times = [f"{year}-11-01T00" for year in range(2006, 2012)]
    found = {}
    for setting in ("nov_djf", "may_jja"):
        acc = np.clip(skill + 0.2 * draws.standard_normal(shape), -1, 1)
        sea = np.where(columns_world().static[1] > 0.5, np.nan, acc)
        rps = (1 - skill) * draws.uniform(0.1, 0.3, len(times))
        by_case = {"rps": {"nino34": rps.tolist()}, "climate_rps": {"nino34": [0.22] * len(times)}}
        p = np.where(acc > 0.5, 0.01, 0.5)
        bias = packed(0.2 * draws.standard_normal(shape))
        found[setting] = {
            "acc": float(acc.mean()),
            "rpss": skill / 2,
            "headline": {"nino34": {"acc": skill, "rpss": float(1 - rps.mean() / 0.22)}},
            "by_case": by_case,
            "maps": {"2m_temperature": {"acc": {**packed(sea), "p": packed(p)}, "bias": bias}},
        }
    base = row("gap", "weather", 0.2)
    settings = {**base["settings"], "track": "seasonal", "name": "seasonal-toy"}
    changes = {"entry": entry, "name": entry, "protocol": "seasonal-toy", "settings": settings}
    metrics = {"acc": {"title": "ACC", "better": "higher"}}
    metrics |= {"rpss": {"title": "tercile RPSS", "better": "higher"}}
    return {**base, **changes, "scores": found, "initial_times": times, "metrics": metrics}


def climate_row(entry: str, drift: float) -> dict:
    """A thousand years: series with the truth of all rows, spectra on two logarithmic axes."""
    draws, years = np.random.default_rng(len(entry)), np.arange(1000)
    mean = 288 + drift * years / 1000 + 0.1 * draws.standard_normal(1000)
    time = {"x_label": "year", "x": years.tolist()}
    months = {"x_label": "month", "x": list(range(1, 13))}
    wave = 5 * np.cos(2 * np.pi * np.arange(12) / 12)
    power = {"x_label": "period, months", "x": [2, 4, 8, 16, 32, 64], "log": "xy"}
    series = [
        {"title": "Global mean temperature", "y_label": "K", "y": mean.round(3).tolist(), **time}
        | {"name": "run"},
        {"title": "Annual cycle", "y_label": "K", "y": (wave + drift).tolist(), **months},
        {"title": "Annual cycle", "y_label": "K", "y": wave.tolist(), "name": "truth", **months},
        {"title": "Power of Nino3.4", "y_label": "K2", "y": [1, 2, 6, 20, 12, 8], **power},
    ]
    base = row("gap", "weather", 0.2)
    settings = {**base["settings"], "track": "climate", "name": "climate-toy"}
    changes = {"entry": entry, "name": entry, "protocol": "climate-toy", "settings": settings}
    metrics = {
        "drift": {"title": "drift", "better": "near", "ideal": 0.0, "units": "K a century"},
        "variance_ratio": {"title": "variance ratio", "better": "near", "ideal": 1.0, "digits": 2},
        "first_non_finite": {"title": "stable years", "better": "higher", "digits": 0},
    }
    scores = {"drift": drift / 10, "variance_ratio": 1 + drift, "first_non_finite": 1000}
    ratio = {"title": "variance over the truth's", "units": ""}
    ratio |= packed(np.exp(0.3 * draws.standard_normal((6, 12))))
    scores["maps"] = {"temperature@850": {"variance_ratio": ratio}}
    regression = {"title": "ENSO regression of rain", "units": "mm/d/K"}
    fields = [{**regression, **packed(draws.standard_normal((6, 12)))}]
    changes |= {"scores": {"1000_years": scores}, "initial_times": ["2006-01-01T00"]}
    return {**base, **changes, "metrics": metrics, "series": series, "fields": fields}


def write_later(folder: Path) -> Path:
    """A seasonal and a climate protocol of two entries each."""
    for entry, value in (("gap", 0.6), ("climatology", 0.0)):
        rows.save(seasonal_row(entry, value), folder)
    for entry, value in (("gap", 0.1), ("speedy", 0.02)):
        rows.save(climate_row(entry, value), folder)
    return folder
