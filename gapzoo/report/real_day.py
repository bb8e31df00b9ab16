"""The page of ``gapzoo real-day``: verdicts by variable and level, the simulator's bias, maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure

from gapzoo.core import VARIABLES
from gapzoo.core.pressure import GRAVITY, HEADLINE, to_pressure
from gapzoo.core.world import World
from gapzoo.report.figures import COLOURS, analysis_maps, draw_map, rank_histograms
from gapzoo.report.forecast import land_of
from gapzoo.report.page import Page
from gapzoo.tasks.calibration import Calibration
from gapzoo.tasks.real_day import RealDay
from gapzoo.tasks.real_state import RealState
from gapzoo.tasks.soundings import Verdict

SHOWN = ("temperature", "u_component_of_wind", "v_component_of_wind", "specific_humidity")
UNITS = {"kg kg-1": ("g/kg", 1e3), "Pa": ("hPa", 0.01), "m2 s-2": ("m", 1 / GRAVITY)}
"""SI units to what is shown, and the factor."""
SATURATION = 0.85
"""Share of the biases that colours tell apart: those of the highest level are far larger."""
SATURATED = "Colours end at the 85th percentile: the simulator's top levels are far off."
NOTES = (
    "A prior that was trained on a simulator knows how winds, temperature and pressure hang "
    "together, and at which scales. It does not know the real climate's mean, how strong the real "
    "weather is, or what its grid cannot carry. The first two are estimated here from the "
    "assimilated observations alone: a bias by latitude and level, an amplitude by level; the "
    "third enters the errors of soundings. None of it is known where nothing was observed.",
    "Left out of reach: biases that change along a latitude circle (mountains, storm tracks, "
    "monsoons), which count as weather; patterns that the simulator does not make at all "
    "(the real stratosphere above its top levels, the diurnal cycle, fronts); and, from one day, "
    "whether a zonal-mean departure is bias or weather.",
)


def write(path: Path, day: RealDay | None, state: RealState | None) -> Path:
    """Write what was done, one of the two or both."""
    page = Page("gapzoo real-day")
    for note in NOTES:
        page.text(note)
    if day is not None:
        _soundings(page, day)
    if state is not None:
        _state(page, state)
    return page.write(path)


def counts(day: RealDay) -> list[tuple[str, int]]:
    """What became of the observations: rows of a table."""
    own = day.soundings
    stations = own.observations.table["station"]
    rows = [
        ("stations assimilated", stations[~own.withheld].nunique()),
        ("stations withheld", stations[own.withheld].nunique()),
        ("layer averages", len(own.observations)),
    ]
    rows += list(day.counts.items())
    reasons = own.rejected["reason"].value_counts()
    return rows + [(f"before averaging: {reason}", int(n)) for reason, n in reasons.items()]


def _soundings(page: Page, day: RealDay) -> None:
    own = day.soundings
    page.heading(f"Soundings of {own.time:%Y-%m-%d %H:%M} UTC")
    page.table(("observations", "number"), counts(day))
    page.text(
        "Rejected: more than 5 standard deviations of climate and error from the climatological "
        "mean. A check against the simulator's own climate rejects good observations where the "
        "simulator is biased.",
        note=True,
    )
    page.heading("Withheld soundings")
    page.text(
        f"{day.members} members, seed {day.seed}. Root mean square of observation minus ensemble "
        "mean, over that of the simulator's climatology, mean over levels. Errors of the "
        "observations, representativeness included, are part of it: 0 cannot be reached."
    )
    table = day.table()
    page.table(("", *table.columns), [(n, *map(float, row)) for n, row in _rows(table)])
    page.figure(_profiles(day.verdicts, "rms"), "Root mean square by level (sigma).")
    page.figure(_profiles(day.verdicts, "bias"), "Mean of observed minus analysed.")
    ranks = {n: v.ranks.tolist() for n, v in day.verdicts.items() if len(v.ranks)}
    page.figure(rank_histograms(ranks), "Ranks of withheld observations among members with errors.")
    for name, verdict in day.verdicts.items():
        if name.startswith("GAP"):
            page.text(f"{name}, SI units:")
            page.table(_HEAD, _levels(verdict))
    page.heading("The simulator against the soundings")
    page.figure(
        _bias(day.calibration, own.world), f"Estimated bias, real minus simulated. {SATURATED}"
    )
    head = ("channel", "amplitude of weather", "error with representativeness", "places")
    page.table(head, _climate(day.calibration, own.world))
    page.heading("Analyses")
    for label in _fields(own.world):
        page.figure(_maps(day, label), f"{label}: mean and spread; dots are assimilated stations.")


_HEAD = ("variable", "sigma", "count", "bias", "rms", "expected rms", "spread")


def _rows(table: pd.DataFrame) -> list[tuple[str, list[float]]]:
    return [(str(name), list(row)) for name, row in zip(table.index, table.to_numpy(), strict=True)]


def _levels(verdict: Verdict) -> list[tuple[object, ...]]:
    found = verdict.summary().reset_index()
    return [
        (
            r.variable,
            f"{r.level:g}",
            int(r.count_),
            *map(_short, (r.bias, r.rms, r.expected, r.spread)),
        )
        for r in found.rename(columns={"count": "count_"}).itertuples()
    ]


def _short(value: float) -> str:
    return "-" if np.isnan(value) else f"{value:.3g}"


def _climate(calibration: Calibration, world: World) -> list[tuple[object, ...]]:
    parts = zip(world.channels, calibration.amplitude, calibration.error, strict=True)
    return [
        (c.label, f"{a:.2f}", _short(e), int(n))
        for (c, a, e), n in zip(parts, calibration.count, strict=True)
        if n
    ]


def _scaled(variable: str) -> tuple[str, float]:
    units = VARIABLES[variable].units
    return UNITS.get(units, (units, 1.0))


def _profiles(verdicts: Mapping[str, Verdict], statistic: str) -> Figure:
    """One panel a variable, a line a method over sigma."""
    summaries = {n: v.summary()[statistic] for n, v in verdicts.items()}
    known = next(iter(summaries.values())).index.get_level_values(0)
    names = [name for name in SHOWN if name in known]
    figure = Figure(figsize=(3.3 * len(names), 4.6), layout="constrained")
    axes = figure.subplots(1, len(names), squeeze=False)[0]
    methods = list(dict.fromkeys(n.split(",")[0] for n in summaries))
    for ax, name in zip(axes, names, strict=True):
        units, factor = _scaled(name)
        for method, values in summaries.items():
            one = factor * values.loc[name]
            colour = COLOURS[methods.index(method.split(",")[0])]
            style = "o-" if method.endswith("calibrated") else "o:"
            ax.plot(one, one.index, style, color=colour, label=method, markersize=3)
        ax.axvline(0, color="0.7", linewidth=0.8)
        ax.set(title=name.replace("_", " "), xlabel=f"{statistic} ({units})", ylim=(1.02, 0))
        ax.title.set_fontsize(9)
        ax.grid(alpha=0.3)
    axes[0].set_ylabel("sigma")
    figure.legend(
        *axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=8
    )
    return figure


def _bias(calibration: Calibration, world: World) -> Figure:
    """Latitude by sigma."""
    names = [n for n in SHOWN if n in {c.variable for c in world.channels}]
    figure = Figure(figsize=(3.5 * len(names), 3), layout="constrained")
    axes = figure.subplots(1, len(names), squeeze=False)[0]
    for ax, name in zip(axes, names, strict=True):
        units, factor = _scaled(name)
        rows = world.channels.of(name)
        levels = [world.channels[i].level or 1.0 for i in rows]
        field = factor * calibration.bias[rows]
        worst = float(np.quantile(np.abs(field), SATURATION)) or 1.0
        picture = ax.pcolormesh(
            world.grid.latitude,
            levels,
            field,
            cmap="RdBu_r",
            vmin=-worst,
            vmax=worst,
            shading="nearest",
        )
        ax.set(title=f"{name.replace('_', ' ')} ({units})", xlabel="latitude", ylim=(1, 0))
        ax.title.set_fontsize(9)
        figure.colorbar(picture, ax=ax, extend="both")
    axes[0].set_ylabel("sigma")
    return figure


def _fields(world: World) -> list[str]:
    """What maps show, as far as the world's channels give it."""
    return ["geopotential@500"] * bool(_headline(world)) + ["temperature@850"]


def _headline(world: World) -> list[str]:
    """Fields whose errors are given in units; none where the channels do not give them."""
    known = {c.variable for c in world.channels}
    whole = "specific_humidity" in known and "geopotential_at_surface" in world.static_channels
    return list(HEADLINE) if whole else []


def _maps(day: RealDay, label: str) -> Figure:
    """Mean and spread of every analysis."""
    own, world = day.soundings, day.soundings.world
    land = land_of(world)
    units, factor = _scaled(label.split("@")[0])
    places = own.observations.table[~own.withheld][["latitude", "longitude"]]
    places = places.drop_duplicates().to_numpy()
    found = {
        name: factor * to_pressure(members, world, [label])[:, 0].numpy()
        for name, members in day.analyses.items()
    }
    means = {name: fields.mean(0) for name, fields in found.items()}
    low, high = min(m.min() for m in means.values()), max(m.max() for m in means.values())
    widest = max(float(f.std(0, ddof=1).max()) for f in found.values())
    figure = Figure(figsize=(10, 2.6 * len(found)), layout="constrained")
    for row, (name, fields) in zip(
        figure.subplots(len(found), 2, squeeze=False), found.items(), strict=True
    ):
        mean, spread = means[name], fields.std(0, ddof=1)
        title, limits = f"{name}: {label} ({units})", (float(low), float(high))
        draw_map(row[0], world.grid, mean, land, title=title, limits=limits, stations=places)
        wide = (0.0, widest)
        draw_map(row[1], world.grid, spread, land, title="spread", limits=wide, colours="magma")
    return figure


def _state(page: Page, state: RealState) -> None:
    page.heading(f"A real state of {state.time:%Y-%m-%d %H:%M} UTC")
    count = ", ".join(f"{len(s.columns)} ({f:.0%})" for f, s in state.stations.items())
    page.text(
        f"Whole columns of it, {count}, are observed at random with standard errors, and the rest "
        f"is reconstructed: {state.members} members, seed {state.seed}, {state.sampling.steps} "
        f"sampler steps, a prior of {state.world.name}. The truth is the state on the world's own "
        "levels, at its own ground."
    )
    if absolute := _headline(state.world):
        page.text("Root mean square error of the mean; in brackets what the members say it is.")
        page.table(*_absolute(state, absolute))
    page.text(
        "Root mean square error over that of the simulator's climatology, mean over levels; "
        "s/e is spread over error, 1 where the members know their error."
    )
    page.table(*_relative(state.table()))
    page.text(_confidence(state.table()["spread/error"]))
    for name in ("as it is", "calibrated"):
        page.figure(_state_maps(state, name), f"GAP, {name}: truth, means, errors, spreads.")
    known = state.calibrations[max(state.calibrations)]
    page.figure(
        _bias(known, state.world), f"Estimated bias from the most columns observed. {SATURATED}"
    )


def _relative(table: pd.DataFrame) -> tuple[list[str], list[tuple[object, ...]]]:
    """Head and rows of the scores over those of climatology."""
    short = [VARIABLES[n].short if n in VARIABLES else "s/e" for n in table.columns]
    rows: list[tuple[object, ...]] = [
        (f"{fraction:.0%}, {method}", *(_short(v) for v in values))
        for (fraction, method), values in zip(table.index, table.to_numpy(), strict=True)
    ]
    return ["columns, method", *short], rows


def _absolute(
    state: RealState, labels: Sequence[str]
) -> tuple[list[str], list[tuple[object, ...]]]:
    """Head and rows of errors in units."""
    found = state.fields(labels).set_index(["fraction", "method", "field"])
    scales = {label: _scaled(label.split("@")[0]) for label in labels}
    head = ["columns, method", *(f"{label} ({scales[label][0]})" for label in labels)]
    rows: list[tuple[object, ...]] = []
    for fraction, method in state.analyses:
        cells = []
        for label in labels:
            error, spread = scales[label][1] * found.loc[(fraction, method, label)]
            cells.append(_short(error) + ("" if np.isnan(spread) else f" ({_short(spread)})"))
        rows.append((f"{fraction:.0%}, {method}", *cells))
    return head, rows


def _confidence(ratio: pd.Series) -> str:
    """What spread over error says of GAP's ensembles, in words."""
    own = ratio[[name.startswith("GAP") for name in ratio.index.get_level_values("method")]]
    low, high = own.min(), own.max()
    if high < 0.9:
        word = "overconfident: the truth departs from the mean by more than the members say"
    elif low > 1.1:
        word = "underconfident: the members differ by more than the mean is wrong"
    else:
        word = "overconfident where it is below 1"
    return f"Spread over error of GAP's ensembles is {low:.2f} to {high:.2f}: {word}."


def _state_maps(state: RealState, name: str) -> Figure:
    world, label = state.world, _fields(state.world)[0]
    units, factor = _scaled(label.split("@")[0])
    rows = {}
    for fraction, stations in state.stations.items():
        members = state.analyses[fraction, f"GAP, {name}"]
        fields = factor * to_pressure(members, world, [label])[:, 0].numpy()
        row, column = stations.columns.numpy().T
        where = [np.array(world.grid.latitude)[row], np.array(world.grid.longitude)[column]]
        title = f"GAP, {name}, {fraction:.0%} of columns"
        rows[title] = fields.mean(0), fields.std(0, ddof=1), np.stack(where, 1)
    truth = factor * to_pressure(torch.as_tensor(state.truth), world, [label])[0].numpy()
    return analysis_maps(world.grid, land_of(world), truth, rows, label, units)
