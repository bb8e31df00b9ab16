"""The climate track: a record of decades against that of the archive's own years.

An entry is the folder of a run of ``gapzoo simulate`` (or of another realisation's record) with the
protocol's years and step, or ``archive``: another archive of the same world and years, such as
SPEEDY with a changed seed, whose scores are the sampling variability that is the limit to approach.
Scores are in ``gapzoo.tasks.climate_scores``.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from gapzoo.core import GapzooError
from gapzoo.data.archive import Archive
from gapzoo.leaderboard import TRACKS, metrics
from gapzoo.leaderboard.entries import FOLDER_ENTRY
from gapzoo.leaderboard.journal import Journal
from gapzoo.leaderboard.methods import Setting
from gapzoo.leaderboard.protocol import Protocol
from gapzoo.leaderboard.scores import packed
from gapzoo.leaderboard.tracks.seasonal import origin
from gapzoo.tasks.climate import months_of, refer
from gapzoo.tasks.climate_scores import Record, compare
from gapzoo.tasks.record import Recorder
from gapzoo.tasks.sea import SeaSurface

TOLD = {
    "bias_relative": metrics.Metric("bias over spread", "lower", 0.0),
    "variance_ratio": metrics.METRICS["variance_ratio"],
    "monthly_variance_ratio": metrics.Metric("variance ratio, months", "near", 1.0, digits=2),
    "annual_cycle_error": metrics.Metric("annual cycle error", "lower", 0.0),
    "spectrum_error": metrics.METRICS["spectrum_error"],
    "persistence_bias": metrics.Metric("persistence bias", "near", 0.0),
    "high_relative": metrics.Metric("yearly highs over spread", "lower", 0.0),
    "low_relative": metrics.Metric("yearly lows over spread", "lower", 0.0),
    "nino34_pattern": metrics.Metric("Nino3.4 pattern", "higher", 1.0),
    "nino34_amplitude": metrics.Metric("Nino3.4 amplitude", "near", 1.0, digits=2),
    "southern_annular_pattern": metrics.Metric("southern annular mode", "higher", 1.0),
    "northern_annular_pattern": metrics.Metric("northern annular mode", "higher", 1.0),
}


@TRACKS.register("climate")
def run(
    protocol: Protocol, setting: Setting, entry: str, options: dict[str, Any], journal: Journal
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Scores of the whole run, setting ``climate``, and where it came from; as every track.

    Option ``reference``: folder where the archive's record is kept between runs.
    """
    path = Path(str(options.get("path", "")))
    if entry not in (FOLDER_ENTRY, "archive"):
        raise GapzooError(f"entry '{entry}'; it is the folder of a run, or 'archive' with path=")
    told = origin(path) if entry == FOLDER_ENTRY else {"run": path.name}
    journal.begin(told)
    journal.share({})  # one run is one case: nothing is shared
    with _kept(options.get("reference", "")) as folder:
        other = record(protocol, setting, setting.archive, folder / "reference")
        mine = Record(path, setting.world)
        if entry == "archive":
            mine = record(protocol, setting, Archive(path), folder / path.stem)
        _require(protocol, mine, other)
        forcing = SeaSurface("observed", setting.world, setting.archive).at(other.months[0])
        found = compare(mine, other, forcing)
        scores = {"climate": _scores(found, mine, other)}
        series = _series({"run": mine, "reference": other})
        told["members"] = mine.series[1].shape[1]
    if journal.progress:
        journal.progress(protocol.cases)
    stamps = [f"{other.months[0]:%Y-%m-%dT%H}"]
    described = metrics.described(TOLD)
    return scores, {**told, "initial_times": stamps, "metrics": described, "series": series}


@contextmanager
def _kept(folder: str) -> Iterator[Path]:
    """A folder that is named, or one that is gone afterwards."""
    if folder:
        yield Path(folder)
        return
    with tempfile.TemporaryDirectory() as temporary:
        yield Path(temporary)


def record(protocol: Protocol, setting: Setting, archive: Archive, folder: Path) -> Record:
    """The record of an archive's own years."""
    first, months = months_of(protocol.period)
    folder = folder.with_name(
        f"{folder.name}-{archive.hash}-{first:%Y%m}-{months}-{protocol.hours}h"
    )
    refer(Recorder(folder, setting.world, first, months, 1, protocol.hours), archive)
    return Record(folder, setting.world)


def _require(protocol: Protocol, mine: Record, other: Record) -> None:
    if not mine.months.equals(other.months):
        raise GapzooError(
            f"{mine.folder} covers {mine.months[0]:%Y-%m} to {mine.months[-1]:%Y-%m}, protocol "
            f"'{protocol.name}' {other.months[0]:%Y-%m} to {other.months[-1]:%Y-%m}"
        )
    if mine.hours != other.hours:
        raise GapzooError(
            f"{mine.folder} has steps of {mine.hours} h, protocol '{protocol.name}' of "
            f"{other.hours} h; simulate with hours={other.hours}"
        )


def _scores(found: dict[str, Any], mine: Record, other: Record) -> dict[str, Any]:
    everywhere, labels = found["all"], mine.diagnostics.labels
    main = {n: everywhere[n] for n in TOLD if n in everywhere}
    for name, told in TOLD.items():
        if told.ideal == 1.0 and name in found[labels[0]]:  # the mean of ratios, not of sizes
            main[name] = float(np.mean([found[label][name] for label in labels]))
    spectra = {
        x: [round(float(r), 3) for r in mine.power[v] / np.maximum(other.power[v], 1e-30)]
        for v, x in enumerate(labels)
    }
    maps = {
        label: {
            "bias": packed(np.nanmean(mine.cycle[:, v] - other.cycle[:, v], 0)),
            "variance_ratio": {
                "title": "variance over the reference's",
                "units": "",
                **packed(mine.variance[v] / np.maximum(other.variance[v], 1e-30)),
            },
        }
        for v, label in enumerate(labels)
    }
    headline = {label: found[label] for label in labels}
    return {**main, "headline": headline, "spectrum_ratio": spectra, "maps": maps}


def _series(records: dict[str, Record]) -> list[dict[str, Any]]:
    """Yearly global means, a line a record."""
    found = []
    for name, one in records.items():
        for column in one.series[2]:
            years, means = one.yearly(column)
            line = {"x": [int(y) for y in years], "y": [float(f"{m:.7g}") for m in means]}
            title = f"global mean: {column.replace('_', ' ')}"
            found.append({"title": title, "x_label": "year", "y_label": "", "name": name, **line})
    return found
