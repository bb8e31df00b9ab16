"""The seasonal track: three-month means from 1 November or 1 May, cross-validated over years.

An entry is the folder of a run of ``gapzoo seasonal`` that has the protocol's starts and members,
or ``persistence``. Settings are the start and the window, ``nov_djf`` and so on; scores and what is
done about biases are in ``gapzoo.tasks.hindcast``.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from gapzoo.core import GapzooError
from gapzoo.leaderboard import TRACKS, metrics
from gapzoo.leaderboard.entries import FOLDER_ENTRY
from gapzoo.leaderboard.journal import Journal
from gapzoo.leaderboard.methods import Setting
from gapzoo.leaderboard.protocol import Protocol
from gapzoo.leaderboard.scores import packed
from gapzoo.leaderboard.statistics import Arrays
from gapzoo.tasks.diagnostics import Diagnostics
from gapzoo.tasks.hindcast import PRESSURE, Day, Months, days_of, read_months, summary
from gapzoo.tasks.seasonal import truth_months, unbroken

WINDOWS = (1, 3)
"""First months, from 0, of the windows that are kept: months 2-4 and 4-6."""
MONTHS = 6
MAIN = ("geopotential@500", PRESSURE, "lowest_level_temperature")
TOLD = {
    "acc": metrics.Metric("ACC", "higher", 1.0),
    "acc_tropics": metrics.Metric("ACC, tropics", "higher", 1.0),
    "acc_northern_extratropics": metrics.Metric("ACC, northern extratropics", "higher", 1.0),
    "rpss": metrics.Metric("RPSS", "higher", 1.0),
    "bias_rmse": metrics.Metric("RMS of the bias", "lower", 0.0, metrics.FIELD),
}


@TRACKS.register("seasonal")
def run(
    protocol: Protocol, setting: Setting, entry: str, options: dict[str, Any], journal: Journal
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Scores by start and window, and where they came from; as every track."""
    world = setting.world
    channels = Diagnostics(world).channels
    times = starts(protocol, setting)
    months, told = Months(), dict[str, Any]()
    if entry == FOLDER_ENTRY:
        folder = Path(str(options.get("path", "")))
        months, told = read_months(folder, channels), origin(folder)
        _require(months, times, protocol, folder)
        told["members"] = len(next(iter(months.values())))
    elif entry != "persistence":
        raise GapzooError(f"entry '{entry}'; it is the folder of a run, or 'persistence'")
    journal.begin(told)

    def make(time: pd.Timestamp) -> Arrays:
        return {"truth": truth_months(setting.archive, world, time, MONTHS, protocol.hours)}

    makes = {f"{t:%Y%m%d}": partial(make, t) for t in times}
    journal.share(makes)
    truths = {t: journal.case(*one)["truth"] for t, one in zip(times, makes.items(), strict=True)}
    days = days_of({entry: months} if months else {}, truths)
    system = entry if months else "persistence"
    scores: dict[str, Any] = {}
    for day in days:
        for window in WINDOWS:
            name = f"{day.times[0]:%b}_{day.window(window)}".lower()
            scores[name] = _scores(day, system, window, setting, channels.labels)
    stamps = [f"{t:%Y-%m-%dT%H}" for t in times]
    return scores, {**told, "initial_times": stamps, "metrics": metrics.described(TOLD)}


def starts(protocol: Protocol, setting: Setting) -> pd.DatetimeIndex:
    """Of the protocol's years, those whose six months one run of the archive holds; all cases."""
    first, last = (pd.Timestamp(day) for day in protocol.period)
    end = setting.archive.times[-1] + setting.archive.step
    every = [
        pd.Timestamp(f"{year}-{day}")
        for day in protocol.starts
        for year in range(first.year, last.year + 1)
    ]
    held = [t for t in every if first <= t <= last and t + pd.DateOffset(months=MONTHS) <= end]
    kept = [t for t in held if unbroken(setting.archive, t, MONTHS)]
    if len(kept) != protocol.cases:
        raise GapzooError(
            f"protocol '{protocol.name}' has {protocol.cases} cases; its period and "
            f"{setting.archive.path} give {len(kept)} starts"
        )
    return pd.DatetimeIndex(kept)


def _require(months: Months, times: pd.DatetimeIndex, protocol: Protocol, folder: Path) -> None:
    lost = [t for t in times if t not in months]
    if lost:
        raise GapzooError(f"{folder} lacks {len(lost)} starts, first {lost[0]:%Y-%m-%d}")
    members, leads = next(iter(months.values())).shape[:2]
    if members < 2 or leads < MONTHS:
        raise GapzooError(
            f"{folder} has {members} members and {leads} months; protocol '{protocol.name}' has "
            f"{protocol.members} members, of which a costly model may have fewer, and {MONTHS}"
        )


def _scores(
    day: Day, system: str, window: int, setting: Setting, labels: list[str]
) -> dict[str, Any]:
    headline, maps = dict[str, Any](), dict[str, Any]()
    for v, label in enumerate(labels):
        case = day.case(system, window, v, setting.world)
        found = summary(case, pressure=label == PRESSURE)
        kept = {n: found[n] for n in TOLD if n in found}
        headline[label] = {**kept, "acc": found["acc_global"], "rpss": found["rpss_global"]}
        headline[label] |= {n: x for n, x in found.items() if n.startswith("correlation_")}
        if label in MAIN:
            maps[label] = {"acc": packed(case.acc()), "bias": packed(case.bias)}
            if case.forecast.shape[1] > 1:
                maps[label]["rpss"] = packed(case.rpss_map())
    means = {n: float(np.mean([h[n] for h in headline.values()])) for n in TOLD if n != "bias_rmse"}
    return {**means, "headline": headline, "maps": maps}


def origin(folder: Path) -> dict[str, Any]:
    """What the store of a run says of itself: checkpoints, their hashes, seed; its recipe."""
    import zarr

    path = folder / "monthly.zarr"
    if not (path / "zarr.json").exists():
        raise GapzooError(f"{folder} holds no run; give the folder of one")
    attributes = dict(zarr.open_group(path, mode="r").attrs)
    keys = ("prior", "prior_sha256", "forecaster", "forecaster_sha256", "seed")
    told = {k: str(attributes[k]) for k in keys if k in attributes}
    recipe = folder / "recipe.yaml"
    return {"run": folder.name, **told, "recipe": recipe.read_text() if recipe.exists() else ""}
