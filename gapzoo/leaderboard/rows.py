"""Rows: run an entry, keep its scores with their provenance, refuse to compare unlike ones.

A row is one JSON file, ``PROTOCOL.NAME.json``. A track returns (scores, provenance); what it puts
into provenance lies beside the scores, and ``run`` adds the rest. This is the format of all tracks:

    entry, name             the method, and what its row is called
    protocol, protocol_hash, settings, archive_hash, members, cases, seed, estimator
                            what rows of one table share, see ``refuse_unlike``
    initial_times           of the cases, ISO to the hour; intervals need them
    analyses_sha256         weights that made the initial ensembles, where analyses are
    command, device, date, git commit, versions, and what the method says of itself
    wall_seconds, cpu_seconds, scoring_seconds      of all cases; scoring is part of the others
    grid                    latitude, longitude, land (packed): what maps are drawn on
    scores                  by setting, in the order of the columns. A setting is a density (<= 1),
                            a lead in hours, or words such as "nov_djf". Each has any of
        METRIC              a number, the mean over channels or the main one
        METRIC_by_channel   by channel, SI units
        headline            {field: {METRIC: number}}, SI units; a field is a channel's label such
                            as "temperature@850", or words such as "nino34"
        ranks               counts of the truth's rank among the members
        spectrum_ratio      {field: power over the truth's, by zonal wavenumber from 0}
        spread_skill_by_wavenumber      {field: spread over error, by zonal wavenumber from 0}
        by_case             {TERM: {field: a number a case}}, field "mean" where it is the main one:
                            what intervals and p-values are made from. Of crps, rmse, acc, rpss and
                            spread_skill the terms are ``intervals.TERMS``, of others themselves
        maps                {field: {KIND: packed}}. KIND is rmse, spread, bias or mean (in the
                            field's units), acc, correlation, rpss, variance_ratio, or another that
                            brings "title" and "units". ``packed`` takes NaN for what is missing;
                            "p", packed too, is dotted where it is below 0.05
    metrics                 {METRIC: {title, better, ideal, units, digits}} of scores that
                            ``metrics.METRICS`` doesn't know, in the order they are shown
    series                  list of {title, x_label, y_label, x, y}: lines of one title share a
                            chart. Optional: name (one line of several; those of one name and equal
                            values are drawn once, such as "truth"), low and high (a band), and log
                            ("x", "y" or "xy")
    fields                  list of {title, units, **packed}: maps that belong to no setting

Whatever is absent is not shown. The scores of a run that diverged are Infinity.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

from gapzoo.core import GapzooError
from gapzoo.core.world import World
from gapzoo.data.archive import Archive
from gapzoo.fit import versions
from gapzoo.leaderboard import TRACKS, helpers
from gapzoo.leaderboard.helpers import Job
from gapzoo.leaderboard.journal import Journal
from gapzoo.leaderboard.methods import Setting, setting_of
from gapzoo.leaderboard.protocol import Protocol
from gapzoo.leaderboard.scores import packed

FOLDER = Path("evaluation/leaderboard")
FORMAT = 2
"""Of rows: 2 has scores by case, spectra and maps; rows without a number are of the first."""
LONGEST = 60
"""Characters of a setting in a message."""
STARTS = ("initial_times", "analyses_sha256")
"""What comparable rows began from, as far as they say."""


def run(
    protocol: Protocol,
    archive: Archive,
    entry: str,
    options: dict[str, Any],
    journal: Journal | None = None,
    device: str = "cpu",
) -> dict[str, Any]:
    """Run an entry under a protocol and return its row.

    Args:
        protocol: what is fixed.
        archive: truth and climatology.
        entry: registered name of a method of the protocol's track.
        options: the method's own, such as ``prior`` (a checkpoint) or ``steps``.
        journal: keeps the cases that are done; none are kept where None.
        device: that networks compute on, such as ``cuda``.
    """
    setting, journal = setting_of(archive, protocol.variables, device), journal or Journal()
    with _bar() as bar:
        task = bar.add_task(entry, total=_parts(protocol))
        journal.progress = lambda n: bar.advance(task, n)
        scores, provenance = scored(protocol, setting, entry, options, journal)
    made = versions(device)
    return {
        "format": FORMAT,
        "entry": entry,
        "protocol": protocol.name,
        "protocol_hash": protocol.hash,
        "settings": dataclasses.asdict(protocol),
        "archive_hash": archive.hash,
        "members": protocol.members,
        "cases": protocol.cases,
        "seed": protocol.seed,
        "estimator": protocol.estimator,
        "command": _command(protocol, entry, options),
        **provenance,
        "grid": _grid(setting.world),
        "scores": scores,
        "wall_seconds": round(journal.wall, 1),
        "cpu_seconds": round(journal.cpu, 1),
        "scoring_seconds": round(journal.scoring, 1),
        **made,
        "git commit": ", ".join(journal.commits) or made["git commit"],
    }


def scored(
    protocol: Protocol, setting: Setting, entry: str, options: dict[str, Any], journal: Journal
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Scores by setting, and what the method says of itself; arguments as of ``run``."""
    if protocol.track not in TRACKS:
        raise GapzooError(f"protocol '{protocol.name}': track '{protocol.track}' is not known")
    return TRACKS[protocol.track](protocol, setting, entry, options, journal)  # type: ignore[no-any-return]


def store(
    protocol: Protocol,
    archive: Archive,
    entry: str,
    options: dict[str, Any],
    folder: Path = FOLDER,
    name: str | None = None,
    device: str = "cpu",
    processes: int = 1,
) -> Path:
    """Run an entry and store its row; a run that was killed goes on with its first open case.

    Args:
        protocol: as the others, see ``run``.
        archive: truth and climatology.
        entry: a method.
        options: the method's own.
        folder: of the rows; cases that are done wait in ``.cases`` below it.
        name: of the row, where an entry has several.
        device: that networks compute on.
        processes: that share the cases, a core and a thread each.
    """
    cases = folder / ".cases"
    job = Job(protocol, archive.path, entry, options, cases, name or entry, device)
    _shared([job], processes)
    journal = job.journal()
    row = run(protocol, archive, entry, options, journal, device)
    if name and name != entry:
        row["command"] += f" --name {shlex.quote(name)}"
    path = save({"name": name or entry, **row}, folder, name)
    journal.clear()
    return path


def _shared(jobs: list[Job], processes: int) -> None:
    """Have several processes make what is open."""
    if processes < 1:
        raise GapzooError(f"{processes} processes; give 1 or more")
    if processes > 1:
        with _bar() as bar:
            helpers.share(jobs, processes, bar, sum(_parts(job.protocol) for job in jobs))


def _parts(protocol: Protocol) -> int:
    """What the progress bar counts to."""
    networks = len(protocol.densities) if protocol.track in ("analysis", "cycle") else 1
    return protocol.cases * (networks + bool(protocol.cycling.sondes))


def _command(protocol: Protocol, entry: str, options: dict[str, Any]) -> str:
    given = [f"{k}={v if isinstance(v, str) else json.dumps(v)}" for k, v in options.items()]
    words = ["gapzoo", "leaderboard", "run", protocol.name, "--entry", entry, *given]
    return shlex.join(words)


def _grid(world: World) -> dict[str, Any]:
    """Points, and land, for the maps."""
    grid = world.grid
    points = {"latitude": grid.latitude, "longitude": grid.longitude}
    found: dict[str, Any] = {k: [round(x, 3) for x in v] for k, v in points.items()}
    if "land_sea_mask" in world.static_channels:
        land = world.static[world.static_channels.index("land_sea_mask")]
        found["land"] = packed(np.asarray(land, float))
    return found


def _bar() -> Progress:
    columns = ("[progress.description]{task.description}", BarColumn(), MofNCompleteColumn())
    return Progress(*columns, TimeRemainingColumn())


def save(row: dict[str, Any], folder: Path = FOLDER, name: str | None = None) -> Path:
    """Store a row under protocol and entry; one of the same name is replaced whole."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = re.sub(r"[^\w.-]+", "-", f"{row['protocol']}.{name or row['entry']}")
    path = folder / f"{stem}.json"
    part = path.with_suffix(".part")
    part.write_text(_compact(row) + "\n")
    part.replace(path)
    return path


def _compact(value: Any, margin: str = "") -> str:
    """JSON with a line a key, and lists in one line."""
    if not isinstance(value, dict) or not value:
        return json.dumps(value)
    deeper = margin + " "
    lines = [f"{deeper}{json.dumps(str(k))}: {_compact(v, deeper)}" for k, v in value.items()]
    return "{\n" + ",\n".join(lines) + f"\n{margin}}}"


def rows(protocol: str, folder: Path = FOLDER) -> list[dict[str, Any]]:
    """All rows of a protocol.

    Raises:
        GapzooError: where their settings or truths differ, naming what does and the rows.
    """
    found = _all(protocol, folder)
    for row in found[1:]:
        refuse_unlike(found[0], row)
    return found


def alike(path: Path, folder: Path = FOLDER) -> tuple[list[dict[str, Any]], list[str]]:
    """Rows that a stored row is comparable with, itself among them, and why others are not."""
    mine, found, why = _read(path), [], dict[str, list[str]]()
    for row in _all(mine["protocol"], folder):
        differs = _unlike(row, mine)
        if differs is None:
            found.append(row)
            continue
        key, theirs, own = differs
        why.setdefault(f"{key} {theirs}, here {own}", []).append(label(row))
    return found, [
        f"{', '.join(names)} ({what}); run them again alike" for what, names in why.items()
    ]


def _all(protocol: str, folder: Path) -> list[dict[str, Any]]:
    every = [_read(p) for p in sorted(folder.glob(f"{protocol}.*.json"))]
    return [row for row in every if row.get("protocol") == protocol and "scores" in row]


def protocols(folder: Path = FOLDER) -> list[str]:
    """Names of the protocols that have rows."""
    every = [_read(p) for p in sorted(folder.glob("*.json"))]
    return sorted({row["protocol"] for row in every if "scores" in row})


def refuse_unlike(first: dict[str, Any], second: dict[str, Any]) -> None:
    """Raise GapzooError where two rows of a protocol are not comparable, naming the setting."""
    differs = _unlike(first, second)
    if differs is not None:
        key, a, b = differs
        raise GapzooError(
            f"rows of '{first['protocol']}' differ in {key}: {a} ({label(first)}), {b} "
            f"({label(second)}); run them again alike"
        )


def _unlike(first: dict[str, Any], second: dict[str, Any]) -> tuple[str, str, str] | None:
    """The first setting that two rows must share and do not, with both values, told shortly."""
    if all(first.get(k) == second.get(k) for k in ("protocol_hash", "archive_hash", *STARTS)):
        return None
    both = _settings(first, second).items()
    return next(((key, _told(a), _told(b)) for key, (a, b) in both if a != b), None)


def _told(value: Any) -> str:
    """A value in few words."""
    text = str(value)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."


def _settings(first: dict[str, Any], second: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """What two rows must share: single settings first, what stands for all of them last."""
    both = [{**row, **row.get("settings", {})} for row in (first, second)]
    known = {f.name for f in dataclasses.fields(Protocol)} - {"description"}
    keys = [k for k in sorted(known) if all(k in row for row in both)]
    keys += ["archive_hash", "protocol_hash"]
    keys += [key for key in STARTS if all(key in row for row in both)]
    return {key: (both[0][key], both[1][key]) for key in keys}


def label(row: dict[str, Any]) -> str:
    """What a row is called: its name, where an entry has several, or its entry."""
    return str(row.get("name", row["entry"]))


def _read(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text()))
    except (ValueError, TypeError) as error:
        raise GapzooError(f"row {path} is damaged ({error}); run it again") from None


def tune(
    protocol: Protocol,
    archive: Archive,
    entry: str,
    grid: dict[str, list[Any]],
    metric: str = "crps",
    folder: Path | None = None,
    device: str = "cpu",
    processes: int = 1,
) -> dict[str, Any]:
    """Run an entry for every combination of options and keep the best of each setting.

    One that was killed goes on with its first open case.

    Args:
        protocol: in the validation years.
        archive: truth and training years.
        entry: a method.
        grid: values to try, by option.
        metric: the smaller the better.
        folder: cases that are done wait in ``.cases`` below it; they are not kept where None.
        device: that networks compute on.
        processes: that share the cases of all combinations, a core and a thread each; they need
            a folder.

    Returns:
        ``best`` options by setting (density, lead), and ``tried``: options and values of all.
    """
    tried, journals, jobs = [], [], list[Job]()
    every = [dict(zip(grid, v, strict=True)) for v in itertools.product(*grid.values())]
    if folder is not None:
        given = (folder / ".cases", "tune", device)
        jobs = [Job(protocol, archive.path, entry, options, *given) for options in every]
        _shared(jobs, processes)
    for number, options in enumerate(every):
        journals.append(jobs[number].journal() if jobs else Journal())
        scores = run(protocol, archive, entry, dict(options), journals[-1], device)["scores"]
        tried.append({"options": options, metric: {k: v[metric] for k, v in scores.items()}})
    for journal in journals:
        journal.clear()
    return {
        "entry": entry,
        "protocol": protocol.name,
        "protocol_hash": protocol.hash,
        "archive_hash": archive.hash,
        "best": _best(tried, metric),
        "tried": tried,
        **versions(device),
    }


def tuned_before(
    protocol: Protocol, archive: Archive, entry: str, folder: Path
) -> list[dict[str, Any]]:
    """What an earlier tuning tried, to be added to.

    Raises:
        GapzooError: where there is none, or one of another protocol or archive.
    """
    path = folder / f"{protocol.name}.{entry}.tuned.json"
    if not path.exists():
        raise GapzooError(f"there is no {path} to add to; leave --add out")
    before = _read(path)
    for key, own in (("protocol_hash", protocol.hash), ("archive_hash", archive.hash)):
        if before.get(key) != own:
            raise GapzooError(
                f"{path} has {key} {before.get(key)}, this tuning {own}; they cannot be compared, "
                "leave --add out or name another --folder"
            )
    return list(before["tried"])


def joined(
    before: list[dict[str, Any]], found: dict[str, Any], metric: str = "crps"
) -> dict[str, Any]:
    """What ``tune`` gave, with what was tried before; options tried twice count as now."""
    new = [row["options"] for row in found["tried"]]
    tried = [row for row in before if row["options"] not in new] + found["tried"]
    return {**found, "best": _best(tried, metric), "tried": tried}


def _best(tried: list[dict[str, Any]], metric: str) -> dict[str, Any]:
    """Options by setting."""
    return {s: _least(tried, metric, s) for s in tried[0][metric]}


def _least(tried: list[dict[str, Any]], metric: str, setting: str) -> dict[str, Any]:
    return min(tried, key=lambda row: row[metric][setting])["options"]
