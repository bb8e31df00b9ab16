"""The page of a run of ``gapzoo forecast``: stamps, spread maps, plumes, scores, spectra."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure

from gapzoo.core import Channel, Channels
from gapzoo.core.world import World
from gapzoo.data.archive import Archive
from gapzoo.data.module import Reader
from gapzoo.evaluators.crps import ensemble_crps
from gapzoo.evaluators.spectra import zonal_power
from gapzoo.report.figures import COLOURS, curves, draw_map, spectra
from gapzoo.report.page import Page
from gapzoo.tasks.diagnostics import Diagnostics

if TYPE_CHECKING:
    from gapzoo.tasks.forecast import ForecastRecipe, Forecasts

STAMPS = 8
"""Members on maps."""
SHOWN = ("geopotential@500", "temperature@850", "mean_sea_level_pressure")
PLACES = {
    "50N 0E": (50.0, 0.0),
    "40N 95W": (40.0, 265.0),
    "45S 170E": (-45.0, 170.0),
    "equator 160E": (0.0, 160.0),
}
"""Where plumes are drawn: name to latitude and longitude."""


@dataclass(frozen=True)
class Fields:
    """One initial time of ``forecast.zarr``, in memory one lead at a time.

    Args:
        data: the store, open.
        channels: of its fields.
        time: initial time.
        leads: hours that were written.
    """

    data: Any
    channels: Channels
    time: pd.Timestamp
    leads: list[int]

    def at(self, lead: int) -> np.ndarray:
        """(M, V, H, W) at a lead."""
        hours = pd.Timedelta(hours=lead)
        one = self.data.sel(time=np.datetime64(self.time), prediction_timedelta=hours)
        return np.stack([_field(one, c) for c in self.channels], 1)


def _field(one: Any, channel: Channel) -> np.ndarray:
    field = one[channel.variable]
    return (field if channel.level is None else field.sel(level=channel.level)).values


@dataclass(frozen=True)
class Truths:
    """Fields of an archive, where it has them."""

    archive: Archive
    world: World
    diagnostics: Diagnostics

    def at(self, time: pd.Timestamp) -> np.ndarray | None:
        """(V, H, W) at a time, or None."""
        row = self.archive.find([time])
        if row[0] < 0:
            return None
        return self.diagnostics(Reader(self.archive, self.world).physical(row))[0].numpy()


def write(
    run: Forecasts, recipe: ForecastRecipe, archive: Archive | None, stopped: str = ""
) -> Path:
    """Write ``report.html`` into the run's folder.

    Args:
        run: of the stores.
        recipe: what was asked for.
        archive: of the truth, or None.
        stopped: why the run ended early.
    """
    world, diagnostics = run.rollout.world, run.diagnostics
    truths = None if archive is None else Truths(archive, world, diagnostics)
    _, store = run.stores()
    page = Page("gapzoo forecast")
    page.text(
        f"{len(run.times)} initial times, {run.members} members, steps of {recipe.hours} h to "
        f"{recipe.lead_days:g} days; prior {recipe.prior or 'none'}, forecaster "
        f"{recipe.forecaster}, {recipe.sampling}, seed {recipe.seed}, SST {recipe.sst}."
    )
    if stopped:
        page.heading("Stopped")
        page.text(stopped)
    done = [t for t in run.times if store.written(t)]
    with store.open() as data:
        each = [Fields(data, diagnostics.channels, t, store.written(t)) for t in done]
        if each:
            _first(page, each[0], world, diagnostics, truths)
            _scores(page, each, world, diagnostics, truths)
    return page.write(run.folder / "report.html")


def _first(
    page: Page, one: Fields, world: World, diagnostics: Diagnostics, truths: Truths | None
) -> None:
    """Maps and plumes of one initial time."""
    page.heading(f"The forecast of {one.time:%Y-%m-%d %H:%M}")
    label = diagnostics.labels[diagnostics.index("geopotential@500")]
    at = diagnostics.index(label)
    for lead in _some(one.leads):
        valid = one.time + pd.Timedelta(hours=lead)
        truth = None if truths is None else truths.at(valid)
        figure = stamps(world, one.at(lead)[:, at], None if truth is None else truth[at], label)
        page.figure(figure, f"{label}, {lead} h, valid {valid:%Y-%m-%d %H:%M}")
    shown = list(dict.fromkeys(diagnostics.index(label) for label in SHOWN))
    page.figure(spreads(world, one, shown), "Spread of the members at the same leads.")
    page.figure(
        plumes(world, diagnostics, one, truths, shown),
        "Members (thin), their mean (thick), the truth (black), the climatology (dashed).",
    )


def _some(leads: list[int]) -> list[int]:
    """First, middle and last."""
    return list(dict.fromkeys([leads[0], leads[(len(leads) - 1) // 2], leads[-1]]))


def land_of(world: World) -> np.ndarray:
    """(H, W) land fraction, zero where the world has none."""
    if "land_sea_mask" not in world.static_channels:
        return np.zeros(world.grid.shape)
    return world.static[world.static_channels.index("land_sea_mask")]


def stamps(world: World, members: np.ndarray, truth: np.ndarray | None, title: str) -> Figure:
    """Maps (M, H, W) of members beside the truth and the mean, in the same colours."""
    shown = {f"member {m}": members[m] for m in range(min(STAMPS, len(members)))}
    first = {} if truth is None else {"truth": truth}
    shown = {**first, "mean": members.mean(0), **shown}
    columns = 4
    rows = -(-len(shown) // columns)
    figure = Figure(figsize=(4.2 * columns, 2.4 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    limits = (float(members.min()), float(members.max()))
    for ax, (name, field) in zip(axes, shown.items(), strict=False):
        draw_map(ax, world.grid, field, land_of(world), title=name, limits=limits)
    for ax in axes[len(shown) :]:
        ax.axis("off")
    figure.suptitle(title, fontsize=10)
    return figure


def spreads(world: World, one: Fields, shown: list[int]) -> Figure:
    """Standard deviation over members, a row a field and a column a lead."""
    leads = _some(one.leads)
    size = (4.2 * len(leads), 2.4 * len(shown))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(len(shown), len(leads), squeeze=False)
    fields = [one.at(lead)[:, shown] for lead in leads]
    width = [f.std(0, ddof=1) if len(f) > 1 else np.zeros(f.shape[1:]) for f in fields]
    for r, v in enumerate(shown):
        limits = (0.0, max(float(w[r].max()) for w in width) or 1.0)
        for c, lead in enumerate(leads):
            title = f"{one.channels[v].label}, {lead} h"
            ax, land = axes[r, c], land_of(world)
            draw_map(ax, world.grid, width[c][r], land, title=title, limits=limits, colours="magma")
    return figure


def plumes(
    world: World, diagnostics: Diagnostics, one: Fields, truths: Truths | None, shown: list[int]
) -> Figure:
    """Members by lead at some places."""
    lat, lon = (np.array(x) for x in (world.grid.latitude, world.grid.longitude))
    points = {
        name: (int(np.abs(lat - y).argmin()), int(np.abs((lon - x + 180) % 360 - 180).argmin()))
        for name, (y, x) in PLACES.items()
    }
    times = pd.DatetimeIndex([one.time + pd.Timedelta(hours=h) for h in one.leads])
    members = np.stack([one.at(h)[:, shown] for h in one.leads])
    climate = diagnostics(world.mean(times)).numpy()[:, shown]
    truth = [None if truths is None else truths.at(t) for t in times]
    known = [n for n, t in enumerate(truth) if t is not None]
    size = (3.6 * len(points), 2.4 * len(shown))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(len(shown), len(points), squeeze=False)
    days = np.array(one.leads) / 24
    for r, v in enumerate(shown):
        for ax, (name, (y, x)) in zip(axes[r], points.items(), strict=True):
            ax.plot(days, members[:, :, r, y, x], color=COLOURS[0], alpha=0.35, linewidth=0.8)
            ax.plot(days, members[:, :, r, y, x].mean(1), color=COLOURS[0], linewidth=2)
            ax.plot(days, climate[:, r, y, x], "--", color="0.5", linewidth=1)
            real = [truth[n][v, y, x] for n in known]  # type: ignore[index]
            ax.plot(days[known], real, color="k", linewidth=1.4)
            ax.set_title(f"{one.channels[v].label}, {name}", fontsize=8)
            ax.tick_params(labelsize=7)
            ax.grid(alpha=0.3)
    for ax in axes[-1]:
        ax.set_xlabel("days", fontsize=8)
    return figure


def _scores(
    page: Page, each: list[Fields], world: World, diagnostics: Diagnostics, truths: Truths | None
) -> None:
    """Spread, and with a truth error and spectra, over all initial times."""
    leads = sorted(set.intersection(*(set(one.leads) for one in each)))
    if not leads:
        return
    found = {h: [s for s in (_score(one, h, world, truths) for one in each) if s] for h in leads}
    leads = [h for h in leads if found[h]]
    if not leads:
        page.text("No truth is known at these times: no scores.", note=True)
        return
    page.heading("Against the truth")
    mean = {h: np.mean([s["scores"] for s in found[h]], 0) for h in leads}
    members = each[0].at(leads[0]).shape[0]
    days = [h / 24 for h in leads]
    for label in diagnostics.labels:
        v = diagnostics.index(label)
        error, width, crps, climate = (
            [float(mean[h][k, v]) for h in leads] for k in range(4)
        )  # fmt: skip
        lines = {
            "RMSE of the mean": (days, [x**0.5 for x in error]),
            "spread": (days, [((members + 1) / members * x) ** 0.5 for x in width]),
            "CRPS": (days, crps),
            "climatological spread": (days, [x**0.5 for x in climate]),
        }
        title = f"{label} ({diagnostics.units(label)})"
        figure = curves(lines, title=title, x="days", y="", dashed=("climatological spread",))
        page.figure(figure, f"{title}: {len(each)} initial times, {members} members")
    chosen = _some(leads)
    power = {h: np.mean([s["power"] for s in found[h]], 0) for h in chosen}
    last = world.grid.shape[1] // 3
    truth = np.mean([power[h][1] for h in chosen], 0)[:, :last]
    others = {f"{h} h": power[h][0][:, :last] for h in chosen}
    page.figure(
        spectra(truth, others, [c.short for c in diagnostics.channels], "power over the truth's"),
        "Zonal power of the members' anomalies over that of the truth's.",
    )


def _score(one: Fields, lead: int, world: World, truths: Truths | None) -> dict[str, Any] | None:
    """Squared error of the mean, variance of the members, CRPS, climate's variance: (4, V)."""
    valid = one.time + pd.Timedelta(hours=lead)
    y = None if truths is None else truths.at(valid)
    if y is None or truths is None:
        return None
    x = one.at(lead)
    area = world.grid.area_weights[:, None] / np.prod(world.grid.shape)

    def mean(field: np.ndarray) -> np.ndarray:
        return (field * area).sum((-2, -1))

    then = pd.DatetimeIndex([valid])
    climate = truths.diagnostics(world.mean(then))[0].numpy()
    variance = x.var(0, ddof=1) if len(x) > 1 else np.zeros_like(y)
    score = ensemble_crps(torch.from_numpy(x)[None], torch.from_numpy(y)[None])[0].numpy()
    parts = ((x.mean(0) - y) ** 2, variance, score, (y - climate) ** 2)
    anomalies = (torch.from_numpy(np.ascontiguousarray(f - climate)) for f in (x, y[None]))
    powers = [zonal_power(anomaly).numpy() for anomaly in anomalies]
    rows = world.grid.area_weights[:, None]
    both = [(p * rows).sum(-2).mean(0) for p in powers]
    return {"scores": np.stack([mean(p) for p in parts]), "power": np.stack(both)}
