"""The page of a run of ``gapzoo seasonal``: skill maps, reliability, indices, against others."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from gapzoo.core.world import World
from gapzoo.report.figures import COLOURS, draw_map
from gapzoo.report.forecast import land_of
from gapzoo.report.page import Page
from gapzoo.tasks.hindcast import INDICES, PRESSURE, Day, Hindcast, correlation, summary

NUMBERS = (
    "acc_global", "acc_tropics", "acc_northern_extratropics", "acc_southern_extratropics",
    "rpss_tropics", "rpss_northern_extratropics", "bias_rmse",
)  # fmt: skip
SHOWN = "geopotential@500"


def write(
    folder: Path, text: str, days: list[Day], world: World, labels: tuple[str, ...], stopped: str
) -> Path:
    """Write ``report.html`` and ``scores.json`` into a folder.

    Args:
        folder: of the run.
        text: what was run.
        days: see ``days_of``.
        world: grid.
        labels: of the fields V.
        stopped: why the run ended early.
    """
    page, scores = Page("gapzoo seasonal"), dict[str, Any]()
    page.text(text)
    if stopped:
        page.heading("Stopped")
        page.text(stopped)
    if not days:
        page.text("Fewer than three years of a start are complete: no scores.", note=True)
    for day in days:
        page.heading(f"Starts of {day.name}, {len(day.times)} years")
        scores[day.name] = _tables(page, day, world, labels)
        _pictures(page, day, world, labels)
    part = folder / "scores.part"
    part.write_text(json.dumps(scores, indent=1) + "\n")
    part.replace(folder / "scores.json")
    return page.write(folder / "report.html")


def _tables(page: Page, day: Day, world: World, labels: tuple[str, ...]) -> dict[str, Any]:
    """Scores of every window, field and system."""
    found: dict[str, Any] = {}
    for window in range(day.truth.shape[1]):
        rows, name = [], day.window(window)
        for v, label in enumerate(labels):
            for system in day.systems:
                case = day.case(system, window, v, world)
                score = summary(case, pressure=label == PRESSURE)
                found.setdefault(name, {}).setdefault(system, {})[label] = score
                rows.append((label, system, *(f"{score[n]:.3g}" for n in NUMBERS)))
        page.text(f"{name}, months {window + 1} to {window + 3}")
        page.table(("field", "system", *NUMBERS), rows)
    page.text(
        "ACC over years, bias and terciles from the other years; persistence is the truth of the "
        "month before the start. Few years: an ACC of one point has a standard error of about "
        f"{1 / np.sqrt(max(len(day.times) - 2, 1)):.2f}.",
        note=True,
    )
    return found


def _pictures(page: Page, day: Day, world: World, labels: tuple[str, ...]) -> None:
    first, window = next(iter(day.systems)), min(1, day.truth.shape[1] - 1)
    name, land = day.window(window), land_of(world)
    maps = {x: day.case(first, window, v, world).acc() for v, x in enumerate(labels)}
    page.figure(_grid(maps, world, land, (-1.0, 1.0)), f"ACC of {first}, {name}")
    v = labels.index(SHOWN) if SHOWN in labels else 0
    each = {s: day.case(s, window, v, world) for s in day.systems}
    maps = {f"ACC, {s}": case.acc() for s, case in each.items()}
    maps |= {f"RPSS, {s}": case.rpss_map() for s, case in each.items() if s != "persistence"}
    page.figure(_grid(maps, world, land, (-1.0, 1.0)), f"{labels[v]}, {name}, by system")
    page.figure(_reliability(each), f"Reliability of the upper tercile, {labels[v]}, {name}")
    if PRESSURE in labels:
        p = labels.index(PRESSURE)
        figure = _indices(day, day.case(first, window, p, world))
        page.figure(figure, f"Indices of {first}, {name}: members, mean (line) and truth (black).")
    if day.nino is not None:
        _response(page, day, each, window, world, f"{labels[v]}, {name}")


def _grid(
    maps: Mapping[str, np.ndarray], world: World, land: np.ndarray, limits: tuple[float, float]
) -> Figure:
    rows = -(-len(maps) // 3)
    figure = Figure(figsize=(13, 2.6 * rows), layout="constrained")
    axes = figure.subplots(rows, 3, squeeze=False).ravel()
    for ax, (name, field) in zip(axes, maps.items(), strict=False):
        draw_map(ax, world.grid, field, land, title=name, limits=limits, colours="RdBu_r")
    for ax in axes[len(maps) :]:
        ax.axis("off")
    return figure


def _reliability(each: Mapping[str, Hindcast]) -> Figure:
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    regions = ("tropics", "northern_extratropics")
    for ax, region in zip(figure.subplots(1, 2), regions, strict=True):
        for n, (name, case) in enumerate(each.items()):
            if case.forecast.shape[1] > 1:
                table = case.reliability(region)
                kept = table[:, 2] > 0.005
                colour = COLOURS[n % len(COLOURS)]
                ax.plot(table[kept, 0], table[kept, 1], "o-", color=colour, label=name)
        ax.plot([0, 1], [0, 1], color="0.5", linewidth=1)
        ax.axhline(1 / 3, color="0.8", linewidth=1)
        ax.set(title=region, xlabel="forecast probability", ylabel="frequency")
    ax.legend(fontsize=8, frameon=False)
    return figure


def _indices(day: Day, case: Hindcast) -> Figure:
    figure = Figure(figsize=(13, 3), layout="constrained")
    years = day.times.year
    for ax, name in zip(figure.subplots(1, len(INDICES)), INDICES, strict=True):
        f, o = case.index(name)
        ax.plot(years, f / 100, ".", color=COLOURS[0], alpha=0.4)
        ax.plot(years, f.mean(1) / 100, color=COLOURS[0])
        ax.plot(years, o / 100, "o-", color="k")
        ax.set(title=f"{name}, r = {correlation(f.mean(1), o):.2f}", ylabel="hPa")
    return figure


def _response(
    page: Page, day: Day, each: Mapping[str, Hindcast], window: int, world: World, title: str
) -> None:
    assert day.nino is not None
    index = day.nino[:, window]
    both = {name: case.response(index) for name, case in each.items()}
    maps = {"truth": next(iter(both.values()))[1], **{n: b[0] for n, b in both.items()}}
    worst = float(np.abs(maps["truth"]).max()) or 1.0
    page.figure(_grid(maps, world, land_of(world), (-worst, worst)), f"{title} per K of Nino3.4")
