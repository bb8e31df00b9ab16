"""The page of ``gapzoo response``: what changed, on maps and by latitude, beside a reference."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from gapzoo.report.figures import COLOURS, draw_map
from gapzoo.report.maps import coast, shown
from gapzoo.report.page import Page
from gapzoo.tasks.response import Change, scores

HEAD = ("field", "units", "change", "reference", "amplitude", "pattern", "error", "noise")


def write(path: Path, run: Change, reference: Change | None, names: tuple[str, ...]) -> Path:
    """Write the page.

    Args:
        path: of the page.
        run: the change.
        reference: another model's under the same; None draws the run's alone.
        names: folders that it was made of, for its first line.
    """
    page = Page("gapzoo response")
    years = f"{run.years[0]} to {run.years[-1]}"
    page.text(f"{' and '.join(names)}; yearly means of {years}, the run less its control.")
    page.table(HEAD, table(run, reference))
    if reference is not None:
        page.text(
            "amplitude and pattern are 1 where the run answers as the reference does; an error of "
            "about the noise, which both have from year to year, is none.",
            note=True,
        )
    for label in run.fields:
        page.figure(_maps(run, reference, label), f"Change of {label}; dots where below two errors")
    page.figure(_zonal(run, reference), "Zonal means with two standard errors")
    return page.write(path)


def table(run: Change, reference: Change | None) -> list[tuple[Any, ...]]:
    """A row a field, in the units that forecasters read."""
    found = {} if reference is None else scores(run, reference)
    rows = []
    for label, field in run.mean.items():
        value, units = shown(np.array(run.area_mean(field)), run.units[label])
        row: tuple[Any, ...] = (label, units, f"{float(value):.3g}")
        if label in found:
            one = found[label]
            other = float(shown(np.array(one["reference_mean"]), run.units[label])[0])
            row += (f"{other:.3g}", *(f"{one[name]:.2f}" for name in HEAD[4:]))
        rows.append(row)
    return rows


def _maps(run: Change, reference: Change | None, label: str) -> Figure:
    both = {"run": run}
    if reference is not None and label in reference.fields:
        both["reference"] = reference
    fields = {name: shown(one.mean[label], run.units[label]) for name, one in both.items()}
    worst = max(float(np.abs(values).max()) for values, _ in fields.values()) or 1.0
    figure = Figure(figsize=(5.2 * len(both), 2.7), layout="constrained")
    axes = figure.subplots(1, len(both), squeeze=False)[0]
    for ax, (name, (values, units)) in zip(axes, fields.items(), strict=True):
        one = both[name]
        unsure = np.abs(one.mean[label]) < 2 * one.error[label]
        lat, lon = np.array(one.grid.latitude), np.array(one.grid.longitude)
        rows, columns = np.nonzero(unsure)
        points = np.stack([lat[rows], lon[columns]], 1)
        limits, title = (-worst, worst), f"{label}, {name} ({units})"
        draw_map(ax, one.grid, values, None, title=title, limits=limits, colours="RdBu_r")
        coast(ax, one.grid)
        ax.scatter(points[:, 1], points[:, 0], s=0.4, c="0.3", linewidths=0)
    return figure


def _zonal(run: Change, reference: Change | None) -> Figure:
    labels, columns = list(run.fields), 4
    height = -(-len(labels) // columns)
    figure = Figure(figsize=(3.4 * columns, 2.6 * height), layout="constrained")
    axes = figure.subplots(height, columns, squeeze=False).ravel()
    both = [("run", run, COLOURS[0])]
    both += [] if reference is None else [("reference", reference, "0.4")]
    for ax, label in zip(axes, labels, strict=False):
        for name, one, colour in (each for each in both if label in each[1].fields):
            yearly, units = shown(one.fields[label].mean(-1), one.units[label])
            mean, lat = yearly.mean(0), np.array(one.grid.latitude)
            ax.plot(lat, mean, color=colour, label=name)
            if len(yearly) > 1:
                wide = 2 * yearly.std(0, ddof=1) / len(yearly) ** 0.5
                ax.fill_between(lat, mean - wide, mean + wide, color=colour, alpha=0.2)
        ax.axhline(0, color="0.2", linewidth=0.6)
        ax.set_title(f"{label} ({units})", fontsize=8)
        ax.tick_params(labelsize=7)
        ax.grid(alpha=0.3)
    axes[0].legend(fontsize=8, frameon=False)
    for ax in axes[len(labels) :]:
        ax.axis("off")
    return figure
