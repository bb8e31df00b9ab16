"""The page of a run of ``gapzoo assimilate``: what was used and what was not, departures, maps."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from gapzoo.report.figures import curves, draw_map
from gapzoo.report.page import Page

if TYPE_CHECKING:
    from gapzoo.tasks.assimilate import Run

SHOWN = 3
"""Channels on maps."""


def write(run: Run) -> tuple[Path, list[str]]:
    """Write ``report.html`` and ``rejected.parquet`` into the run's folder.

    Returns:
        The page's path, and lines that say how many observations were used and why others not.
    """
    table = pd.concat([*run.innovations(), run.left_out()], ignore_index=True)
    table["reason"] = table["reason"].fillna("")
    rejected = table[table["reason"] != ""]
    rejected.to_parquet(run.folder / "rejected.parquet", index=False)
    page = Page("gapzoo assimilate")
    page.text(
        f"{len(run.times)} analyses from {run.times[0]} to {run.times[-1]}, "
        f"{run.recipe.members} members, form '{run.recipe.form}', seed {run.recipe.seed}."
    )
    used = table[table["reason"] == ""]
    lines = [f"{len(used)} of {len(table)} observations used"]
    counts = _reasons(rejected)
    lines += [f"{count} not used: {reason}" for reason, count in counts.items()]
    page.heading("Observations")
    page.table(("reason", "observations"), [("used", len(used)), *counts.items()])
    page.text("Every observation that was not used is in rejected.parquet.", note=True)
    page.table(("variable", "used", *_DEPARTURES), _departures(used))
    page.figure(_series(used), "Departures over their errors by cycle, root mean square.")
    page.heading(f"The last analysis, {run.times[-1]}")
    for label in _channels(run):
        page.figure(_maps(run, label), f"{label}: mean, spread and increment; dots observe it.")
    return page.write(run.folder / "report.html"), lines


def _reasons(rejected: pd.DataFrame) -> dict[str, int]:
    """Counts; reasons that differ in their numbers alone are one."""
    text = rejected["reason"]
    plain = text.str.replace(r"by [\d.]+ standard", "by too many standard", regex=True)
    return {str(k): int(v) for k, v in plain.value_counts().items()}


_DEPARTURES = ("bias b", "rms b", "expected b", "rms a", "expected a")


def _departures(used: pd.DataFrame) -> list[tuple[Any, ...]]:
    """By variable, over the error: y - H(x) of background (b) and analysis (a), and expected.

    An optimal analysis is nearer to what it was made from than their error, by its own variance
    (see ``gapzoo.leaderboard.innovations``).
    """
    rows: list[tuple[Any, ...]] = []
    for name, group in used.groupby("variable"):
        row: list[Any] = [name, len(group)]
        for kind in ("background", "analysis"):
            d = (group["value"] - group[kind]) / group["error"]
            share = (group[f"{kind}_spread"] / group["error"]) ** 2
            wide = 1 + share if kind == "background" else (1 - share).clip(lower=0)
            row += [float(d.mean())] if kind == "background" else []
            row += [float(np.sqrt((d**2).mean())), float(np.sqrt(wide.mean()))]
        rows.append(tuple(row))
    return rows


def _series(used: pd.DataFrame) -> Figure:
    lines = {}
    for kind in ("background", "analysis"):
        d = ((used["value"] - used[kind]) / used["error"]) ** 2
        by_time = np.sqrt(d.groupby(used["slot"]).mean()).dropna()
        days = (by_time.index - used["slot"].min()) / pd.Timedelta(days=1)
        lines[kind] = (list(days), list(by_time))
    return curves(lines, title="departures", x="days", y="over the error")


def _channels(run: Run) -> list[str]:
    """Some channels, spread over the world's."""
    labels = run.task.world.channels.labels
    at = np.linspace(0, len(labels) - 1, min(SHOWN, len(labels))).astype(int)
    return [labels[i] for i in dict.fromkeys(at.tolist())]


def _maps(run: Run, label: str) -> Figure:
    world, time = run.task.world, run.times[-1]
    channel = world.channels.index(label)
    analysis, increment = (run.last(name)[:, channel] for name in ("analyses", "increments"))
    figure = Figure(figsize=(13, 2.8), layout="constrained")
    axes = figure.subplots(1, 3)
    here = run.observations.table[(run.slots == time).to_numpy()]
    here = here[here["variable"] == world.channels[channel].variable]
    places = here[["latitude", "longitude"]].drop_duplicates().to_numpy()
    names = world.static_channels
    land = world.static[names.index("land_sea_mask")] if "land_sea_mask" in names else None
    land = np.zeros(world.grid.shape) if land is None else land
    units = world.channels[channel].units
    mean = increment.mean(0)
    worst = float(np.abs(mean).max()) or 1.0
    draw_map(axes[0], world.grid, analysis.mean(0), land, title=f"mean ({units})", stations=places)
    spread = analysis.std(0, ddof=1)
    draw_map(axes[1], world.grid, spread, land, title="spread", colours="magma")
    limits = (-worst, worst)
    draw_map(axes[2], world.grid, mean, land, title="increment", limits=limits, colours="RdBu_r")
    return figure
