"""The page of a run of ``gapzoo simulate``: series, bias and variance maps, spectra, modes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from matplotlib.figure import Figure

from gapzoo.evaluators.modes import project
from gapzoo.report.figures import COLOURS, curves, draw_map, spectra
from gapzoo.report.forecast import land_of
from gapzoo.report.page import Page
from gapzoo.tasks.climate_scores import (
    HEMISPHERES,
    PRESSURE,
    Forcing,
    Record,
    compare,
    index_of,
    known_in,
    slopes,
    trend,
    zonal_region,
)

if TYPE_CHECKING:
    from gapzoo.tasks.climate import ClimateRecipe

TABLE = (
    "bias",
    "bias_rmse",
    "bias_relative",
    "variance_ratio",
    "monthly_variance_ratio",
    "persistence_bias",
    "spectrum_error",
    "annual_cycle_error",
    "high_bias",
    "low_bias",
    "nino34_pattern",
    "nino34_amplitude",
)
BANDS = {"60-90N": (60, 90), "30-60N": (30, 60), "tropics": (-30, 30), "30-60S": (-60, -30)}


def write(
    run: Record,
    recipe: ClimateRecipe,
    other: Record | None,
    forcing: Forcing | None = None,
    stopped: str = "",
) -> Path:
    """Write ``report.html`` into the run's folder.

    Args:
        run: the simulation.
        recipe: what was asked for.
        other: the reference.
        forcing: of both, where they share it.
        stopped: why the run ended early.
    """
    page, months = Page("gapzoo simulate"), run.months
    page.text(
        f"{len(months)} of {recipe.months} months from {months[0]:%Y-%m}, {recipe.members} "
        f"members, steps of {recipe.hours} h; prior {recipe.prior or 'none'}, forecaster "
        f"{recipe.forecaster}, {recipe.sampling}, SST {recipe.sst} {recipe.offset:+g} K, dry mass "
        f"{'held' if recipe.dry_mass else 'free'}, seed {recipe.seed}."
    )
    if stopped:
        page.heading("Stopped")
        page.text(stopped)
    _series(page, run, other)
    if other is None:
        page.text("No reference was given: no scores.", note=True)
    else:
        _against(page, run, other, forcing)
    return page.write(run.folder / "report.html")


def _series(page: Page, run: Record, other: Record | None) -> None:
    """Global means by year, or by step within the first years."""
    page.heading("Global means")
    names, rows = run.series[2], []
    figure = Figure(figsize=(13, 2.2 * -(-len(names) // 3)), layout="constrained")
    axes = figure.subplots(-(-len(names) // 3), 3, squeeze=False).ravel()
    for ax, name in zip(axes, names, strict=False):
        for record, colour in ((other, "0.4"), (run, COLOURS[0])):
            if record is not None and name in record.series[2]:
                ax.plot(*_line(record, name), color=colour, linewidth=1)
        ax.set_title(name, fontsize=8)
        ax.tick_params(labelsize=7)
        ax.grid(alpha=0.3)
        slope, error = trend(run.yearly(name)[1])
        rows.append((name, run.yearly(name)[1].mean(), 10 * slope, 10 * error))
    for ax in axes[len(names) :]:
        ax.axis("off")
    page.figure(figure, "Global means of the run (blue) and of the reference (grey).")
    page.table(("global mean", "mean", "trend a decade", "its standard error"), _shown(rows))


def _shown(rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    return [(row[0], *(f"{value:.4g}" for value in row[1:])) for row in rows]


def _line(record: Record, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Years and yearly means; steps where there are fewer than six years."""
    years, means = record.yearly(name)
    if len(years) > 5:
        return years + 0.5, means
    times, values, names = record.series
    at = times.year + (times.dayofyear - 1) / 365.25
    return np.asarray(at), values[:, :, names.index(name)].mean(1)


def _against(page: Page, run: Record, other: Record, forcing: Forcing | None) -> None:
    page.heading("Against the reference")
    if forcing is not None and not known_in(forcing, run, other):
        page.text("The sea of all months of both is not known: no response to Nino3.4.", note=True)
        forcing = None
    scores, labels = compare(run, other, forcing), run.diagnostics.labels
    known = [n for n in TABLE if any(n in scores[label] for label in labels)]
    rows = [(x, *(scores[x].get(n, float("nan")) for n in known)) for x in labels]
    page.table(("field", *known), _shown(rows))
    page.text(
        "bias_relative is bias_rmse over the spread of single steps; ratios and the Nino3.4 "
        "pattern and amplitude are 1 where right, errors 0.",
        note=True,
    )
    if run.repeats < 2 or other.repeats < 2:
        page.text(
            "nan: variances of monthly means, modes and regressions need each calendar month "
            "twice, so two years of one member at least.",
            note=True,
        )
    drawn = {
        "Bias of the mean": lambda v: _mean(run)[v] - _mean(other)[v],
        "Variance of single steps over the reference's": lambda v: (
            run.variance[v] / np.maximum(other.variance[v], 1e-30)
        ),
    }
    for title, field in drawn.items():
        page.figure(_maps(run, field, ratio="over" in title), title)
    _cycles(page, run, other)
    last = run.world.grid.shape[1] // 3 + 1
    short = [c.short for c in run.diagnostics.channels]
    power = {"run": run.power[:, :last]}
    zonal = spectra(other.power[:, :last], power, short, "power over the reference's")
    page.figure(zonal, "Zonal power of anomalies over the reference's; grey is within 10 %.")
    page.figure(_time_spectra(run, other), "Spectra in time of monthly annular-mode indices.")
    _modes(page, run, other, scores["all"])
    if forcing is not None:
        page.heading("Response to Nino3.4")
        for label in (PRESSURE, "geopotential@500"):
            if label in labels:
                page.figure(_nino(run, other, label, forcing), f"{label} per K of Nino3.4 SST.")


def _mean(record: Record) -> np.ndarray:
    return np.nanmean(record.mean, 0)


def _maps(run: Record, field: Callable[[int], np.ndarray], ratio: bool) -> Figure:
    labels = run.diagnostics.labels
    rows = -(-len(labels) // 3)
    figure = Figure(figsize=(13, 2.6 * rows), layout="constrained")
    axes = figure.subplots(rows, 3, squeeze=False).ravel()
    for v, (ax, label) in enumerate(zip(axes, labels, strict=False)):
        values = field(v)
        worst = float(np.nanquantile(np.abs(values), 0.99)) or 1.0
        limits = (0.0, 2.0) if ratio else (-worst, worst)
        title = label if ratio else f"{label} ({run.diagnostics.units(label)})"
        land = land_of(run.world)
        draw_map(ax, run.world.grid, values, land, title=title, limits=limits, colours="RdBu_r")
    for ax in axes[len(labels) :]:
        ax.axis("off")
    return figure


def _cycles(page: Page, run: Record, other: Record) -> None:
    """Annual cycle of the lowest temperature by latitude band."""
    v = run.diagnostics.index("lowest_level_temperature")
    lat = np.asarray(run.world.grid.latitude)
    lines: dict[str, Any] = {}
    for name, (south, north) in BANDS.items():
        rows = (lat >= south) & (lat <= north)
        if not rows.any():  # of a coarse grid
            continue
        for kind, record in (("", run), (" reference", other)):
            lines[name + kind] = (range(1, 13), record.cycle[:, v][:, rows].mean((1, 2)))
    references = [name for name in lines if name.endswith("reference")]
    label = run.diagnostics.labels[v]
    figure = curves(lines, title=label, x="month", y="", dashed=references)
    figure.axes[0].set_ylim(auto=True)
    figure.axes[0].relim()
    figure.axes[0].autoscale()
    page.figure(figure, f"Annual cycle of {label} by latitude band.")


def _indices(record: Record, pattern: np.ndarray, hemisphere: str) -> np.ndarray:
    """(N, M) monthly index on a pattern."""
    label = PRESSURE if PRESSURE in record.diagnostics.labels else record.diagnostics.labels[0]
    rows, weight = zonal_region(record.world, hemisphere)
    profile = record.anomalies(label).mean(-1, dtype=np.float64)[..., rows]
    tensors = (torch.from_numpy(x) for x in (profile, pattern, weight))
    return project(*tensors).numpy()


def _time_spectra(run: Record, other: Record) -> Figure:
    figure = Figure(figsize=(4.4 * len(HEMISPHERES), 3), layout="constrained")
    for ax, hemisphere in zip(figure.subplots(1, 2), HEMISPHERES, strict=True):
        pattern = other.mode(hemisphere)[0]
        for record, colour, name in ((other, "0.4", "reference"), (run, COLOURS[0], "run")):
            index = _indices(record, pattern, hemisphere)
            length = min(120, len(index))
            parts = [index[i : i + length] for i in range(0, len(index) - length + 1, length)]
            power = np.mean([np.abs(np.fft.rfft(p, axis=0)) ** 2 / length for p in parts], (0, 2))
            ax.plot(np.arange(1, len(power)) * 12 / length, power[1:], color=colour, label=name)
        ax.set(title=f"{hemisphere} annular mode", xlabel="cycles a year")
        if any((line.get_ydata() > 0).any() for line in ax.lines):  # a single year has no anomalies
            ax.set(xscale="log", yscale="log")
        ax.legend(fontsize=8, frameon=False)
    return figure


def _modes(page: Page, run: Record, other: Record, scores: dict[str, float]) -> None:
    page.heading("Annular modes")
    lines: dict[str, Any] = {}
    for hemisphere in HEMISPHERES:
        lat = np.asarray(run.world.grid.latitude)[zonal_region(run.world, hemisphere)[0]]
        for name, record in (("", run), (" reference", other)):
            lines[hemisphere + name] = (lat, record.mode(hemisphere)[0])
    dashed = [name for name in lines if name.endswith("reference")]
    figure = curves(lines, title="pattern for an index of 1", x="latitude", y="Pa", dashed=dashed)
    figure.axes[0].autoscale()
    page.figure(figure, "Leading mode of monthly zonal mean sea level pressure.")
    rows = [(name, value) for name, value in scores.items() if "annular" in name]
    page.table(("annular modes", ""), _shown(rows))


def _nino(run: Record, other: Record, label: str, forcing: Forcing) -> Figure:
    maps = {
        name: slopes(r, label, index_of(r.world, forcing, r.months))
        for name, r in (("run", run), ("reference", other))
    }
    worst = float(np.nan_to_num(np.abs(maps["reference"])).max()) or 1.0
    figure = Figure(figsize=(10, 2.6), layout="constrained")
    for ax, (name, field) in zip(figure.subplots(1, 2), maps.items(), strict=True):
        land, limits = land_of(run.world), (-worst, worst)
        draw_map(ax, run.world.grid, field, land, title=name, limits=limits, colours="RdBu_r")
    return figure
