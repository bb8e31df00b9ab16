"""Rows: run an entry, keep its scores with their provenance, print tables."""

from __future__ import annotations

import itertools
import json
import re
import time
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn
from rich.table import Table

from gapzoo.core import GapzooError, nearest
from gapzoo.data.archive import Archive
from gapzoo.fit import versions
from gapzoo.leaderboard import TRACKS
from gapzoo.leaderboard.methods import setting_of
from gapzoo.leaderboard.protocol import Protocol

FOLDER = Path("evaluation/leaderboard")
METRICS = {
    "analysis": ("crps", "rmse", "spread_skill"),
    "weather": ("crps", "rmse", "acc", "spread_skill"),
    "cycle": ("crps", "rmse", "spread_skill"),
    "prior": ("spectrum_error", "histogram_distance", "spread_ratio"),
}
"""What is printed after a run, by track."""


def run(
    protocol: Protocol, archive: Archive, entry: str, options: dict[str, Any]
) -> dict[str, Any]:
    """Run an entry under a protocol and return its row.

    Args:
        protocol: what is fixed.
        archive: truth and climatology.
        entry: registered name of a method of the protocol's track.
        options: the method's own, such as ``prior`` (a checkpoint) or ``steps``.
    """
    setting = setting_of(archive, protocol.variables)
    if protocol.track not in TRACKS:
        raise GapzooError(f"protocol '{protocol.name}': track '{protocol.track}' is not known")
    by_density = protocol.track in ("analysis", "cycle")
    total = protocol.cases * (len(protocol.densities) if by_density else 1)
    started, cpu = time.monotonic(), time.process_time()
    with _bar() as bar:
        task = bar.add_task(entry, total=total)
        scores, provenance = TRACKS[protocol.track](
            protocol, setting, entry, options, lambda n: bar.advance(task, n)
        )
    return {
        "entry": entry,
        "protocol": protocol.name,
        "protocol_hash": protocol.hash,
        "archive_hash": archive.hash,
        "members": protocol.members,
        "cases": protocol.cases,
        "seed": protocol.seed,
        "estimator": protocol.estimator,
        **provenance,
        "scores": scores,
        "wall_seconds": round(time.monotonic() - started, 1),
        "cpu_seconds": round(time.process_time() - cpu, 1),
        **versions(),
    }


def _bar() -> Progress:
    columns = ("[progress.description]{task.description}", BarColumn(), MofNCompleteColumn())
    return Progress(*columns, TimeRemainingColumn())


def save(row: dict[str, Any], folder: Path = FOLDER, name: str | None = None) -> Path:
    """Store a row under protocol and entry; one of the same name is replaced whole."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = re.sub(r"[^\w.-]+", "-", f"{row['protocol']}.{name or row['entry']}")
    path = folder / f"{stem}.json"
    part = path.with_suffix(".part")
    part.write_text(json.dumps(row, indent=1) + "\n")
    part.replace(path)
    return path


def rows(protocol: str, folder: Path = FOLDER) -> list[dict[str, Any]]:
    """All rows of a protocol.

    Raises:
        GapzooError: where their protocols' or truths' hashes differ, naming the rows.
    """
    every = [_read(p) for p in sorted(folder.glob(f"{protocol}.*.json"))]
    found = [row for row in every if row.get("protocol") == protocol and "scores" in row]
    for key in ("protocol_hash", "archive_hash"):
        values = {row[key]: row["entry"] for row in found}
        if len(values) > 1:
            raise GapzooError(
                f"rows of '{protocol}' differ in {key} ({values}); run them again alike"
            )
    return found


def _read(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text()))
    except (ValueError, TypeError) as error:
        raise GapzooError(f"row {path} is damaged ({error}); run it again") from None


def table(protocol: str, metric: str = "crps", folder: Path = FOLDER) -> Table:
    """Entries by settings (densities or leads) for one metric."""
    found = rows(protocol, folder)
    if not found:
        raise GapzooError(f"no rows of protocol '{protocol}' in {folder}; run an entry first")
    settings = list(found[0]["scores"])
    known = {name for row in found for s in settings for name in row["scores"][s]}
    if metric not in known:
        raise GapzooError(f"rows of '{protocol}' have no '{metric}'; {nearest(metric, known)}")
    out = Table(title=f"{protocol}: {metric}")
    for head in ("entry", *settings):
        out.add_column(head, justify="left" if head == "entry" else "right")
    for row in found:
        values = [row["scores"][s].get(metric) for s in settings]
        out.add_row(row["entry"], *("" if v is None else f"{v:.3f}" for v in values))
    return out


def tune(
    protocol: Protocol,
    archive: Archive,
    entry: str,
    grid: dict[str, list[Any]],
    metric: str = "crps",
) -> dict[str, Any]:
    """Run an entry for every combination of options and keep the best of each setting.

    Args:
        protocol: in the validation years.
        archive: truth and training years.
        entry: a method.
        grid: values to try, by option.
        metric: the smaller the better.

    Returns:
        ``best`` options by setting (density, lead), and ``tried``: options and values of all.
    """
    names, tried = list(grid), []
    for values in itertools.product(*grid.values()):
        options = dict(zip(names, values, strict=True))
        scores = run(protocol, archive, entry, dict(options))["scores"]
        tried.append({"options": options, metric: {k: v[metric] for k, v in scores.items()}})
    settings = tried[0][metric]
    best = {s: _least(tried, metric, s) for s in settings}
    return {"entry": entry, "protocol": protocol.name, "best": best, "tried": tried, **versions()}


def _least(tried: list[dict[str, Any]], metric: str, setting: str) -> dict[str, Any]:
    return min(tried, key=lambda row: row[metric][setting])["options"]


def markdown(protocol: str, metric: str = "crps", folder: Path = FOLDER) -> str:
    """The table of ``table`` as Markdown, with what its numbers depend on below it."""
    found = rows(protocol, folder)
    if not found:
        raise GapzooError(f"no rows of protocol '{protocol}' in {folder}; run an entry first")
    settings = list(found[0]["scores"])
    lines = [f"| {metric} | {' | '.join(settings)} |", "|---|" + "---|" * len(settings)]
    for row in found:
        values = [row["scores"][s].get(metric) for s in settings]
        cells = ("" if v is None else f"{v:.3f}" for v in values)
        lines.append(f"| {row['entry']} | {' | '.join(cells)} |")
    first = found[0]
    note = (
        f"{first['cases']} cases, {first['members']} members, seed {first['seed']}, "
        f"{first['estimator']} CRPS, {first['device']}, {first['date']}"
    )
    return "\n".join([*lines, "", note])
