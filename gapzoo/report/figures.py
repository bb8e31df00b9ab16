"""The pictures: maps with coastlines, curves by lead, scores by density, rank histograms.

Every function draws on axes that it is given or returns a figure; nothing opens a window.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gapzoo.core import Grid

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's palette, told apart by colour-blind readers."""


def draw_map(
    ax: Axes,
    grid: Grid,
    field: np.ndarray,
    land: np.ndarray | None,
    *,
    title: str = "",
    limits: tuple[float, float] | None = None,
    colours: str = "viridis",
    stations: np.ndarray | None = None,
) -> None:
    """One field (H, W) on a plain latitude-longitude map, with the coast of the model's own land.

    Args:
        land: (H, W) share of land; None draws no coast.
        stations: (n, 2) latitude and longitude of points to mark.
    """
    low, high = limits or (float(field.min()), float(field.max()))
    lon, lat = np.array(grid.longitude), np.array(grid.latitude)
    image = ax.pcolormesh(lon, lat, field, cmap=colours, vmin=low, vmax=high, shading="nearest")
    if land is not None:
        ax.contour(lon, lat, land, [0.5], colors="0.15", linewidths=0.6)
    if stations is not None:
        ax.scatter(stations[:, 1], stations[:, 0], s=5, c="white", edgecolors="k", linewidths=0.5)
    ax.set(title=title, xticks=[0, 90, 180, 270], yticks=[-60, -30, 0, 30, 60], ylim=(-90, 90))
    ax.tick_params(labelsize=7)
    ax.title.set_fontsize(9)
    ax.figure.colorbar(image, ax=ax, shrink=0.75, pad=0.02).ax.tick_params(labelsize=7)


def analysis_maps(
    grid: Grid,
    land: np.ndarray,
    truth: np.ndarray,
    analyses: Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray]],
    title: str,
    units: str,
) -> Figure:
    """Truth, then a row an analysis: its mean with the stations, its error, its spread.

    Args:
        truth: (H, W).
        analyses: name to (mean (H, W), spread (H, W), stations (n, 2)).
    """
    rows = len(analyses) + 1
    figure = Figure(figsize=(13, 2.6 * rows), layout="constrained")
    axes = figure.subplots(rows, 3, squeeze=False)
    limits = (float(truth.min()), float(truth.max()))
    worst = max(float(np.abs(m - truth).max()) for m, _, _ in analyses.values())
    widest = max(float(s.max()) for _, s, _ in analyses.values())
    draw_map(axes[0, 0], grid, truth, land, title=f"truth: {title} ({units})", limits=limits)
    for ax in axes[0, 1:]:
        ax.axis("off")
    for row, (name, (mean, spread, stations)) in zip(axes[1:], analyses.items(), strict=True):
        draw_map(row[0], grid, mean, land, title=name, limits=limits, stations=stations)
        error = (-worst, worst)
        draw_map(
            row[1], grid, mean - truth, land, title="its error", limits=error, colours="RdBu_r"
        )
        draw_map(
            row[2], grid, spread, land, title="its spread", limits=(0, widest), colours="magma"
        )
    return figure


def curves(
    values: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    *,
    title: str,
    x: str,
    y: str,
    dashed: Sequence[str] = (),
    log: bool = False,
) -> Figure:
    """Lines by name, each (x, y); the dashed ones are references."""
    figure = Figure(figsize=(6.2, 3.8), layout="constrained")
    ax = figure.subplots()
    for colour, (name, (at, value)) in zip(_cycle(len(values)), values.items(), strict=True):
        style = "--" if name in dashed else "o-"
        ax.plot(at, value, style, color=colour, label=name, markersize=3.5, linewidth=1.6)
    if log:
        ax.set_xscale("log")
    else:
        ax.set_ylim(bottom=0)
    ax.set(title=title, xlabel=x, ylabel=y)
    ax.grid(alpha=0.3)
    ax.legend(fontsize=8, frameon=False)
    return figure


def rank_histograms(ranks: Mapping[str, Sequence[int]]) -> Figure:
    """Share of truths in each rank of the ensemble; flat where the ensemble is calibrated."""
    figure = Figure(figsize=(4.2 * len(ranks), 3), layout="constrained")
    axes = figure.subplots(1, len(ranks), squeeze=False)[0]
    for ax, (name, counts) in zip(axes, ranks.items(), strict=True):
        share = np.asarray(counts, float) / max(np.sum(counts), 1)
        ax.bar(range(len(share)), share * len(share), color=COLOURS[0], width=0.9)
        ax.axhline(1, color="0.2", linewidth=1, linestyle="--")
        ax.set(title=name, xlabel="rank of the truth", ylabel="share, 1 is calibrated")
    return figure


MOST_ACROSS = 4
"""Panels side by side that a page's width leaves readable."""


def spectra(
    truth: np.ndarray, others: Mapping[str, np.ndarray], names: Sequence[str], title: str
) -> Figure:
    """Power by zonal wavenumber (N, K) for some channels, others over truth.

    Args:
        truth: (N, K).
        others: name to (N, K).
        names: of the N channels.
    """
    columns = min(len(names), MOST_ACROSS)
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(3.2 * columns, 2.8 * rows), layout="constrained")
    every = figure.subplots(rows, columns, squeeze=False, sharey=True).ravel()
    axes = every[: len(names)]
    for empty in every[len(names) :]:
        empty.remove()
    for n, (ax, name) in enumerate(zip(axes, names, strict=True)):
        for colour, (label, power) in zip(_cycle(len(others)), others.items(), strict=True):
            ax.plot(power[n] / truth[n], "o-", color=colour, label=label, markersize=3)
        ax.axhspan(0.9, 1.1, color="0.9")
        ax.axhline(1, color="0.2", linewidth=1)
        ax.set(title=name, xlabel="zonal wavenumber", ylim=(0, 2))
    axes[0].legend(fontsize=8, frameon=False)
    figure.suptitle(title, fontsize=10)
    return figure


def _cycle(count: int) -> list[str]:
    return [COLOURS[i % len(COLOURS)] for i in range(count)]
