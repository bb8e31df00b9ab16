"""Tables of a protocol: entries by settings for one score, best first, with what is real marked.

The best of a column is bold. One that cannot be told from it (paired block bootstrap over initial
times, p >= 0.05) carries the mark ``~``. Where rows have too few initial times, or were made before
cases were kept, nothing is marked and the note says so.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from gapzoo.core import GapzooError, nearest
from gapzoo.leaderboard import metrics
from gapzoo.leaderboard.intervals import Contrast, block, bounds, contrasts, testable
from gapzoo.leaderboard.rows import FOLDER, label, rows

TERMINAL = 100
"""Characters that a printed table may be wide before entries become its columns."""
MARK = "~"
SIGNIFICANT = 0.05
NAMES = {
    "gap": "GAP",
    "convcast": "ConvCast alone",
    "crpscast": "CRPSCast alone",
    "crpscast-corrected": "CRPSCast alone, corrected",
    "diffcast": "DiffCast alone",
    "letkf": "LETKF",
    "enkf": "EnKF",
    "speedy": "SPEEDY",
    "var3d": "3D-Var",
    "free": "free run",
}
"""How tables call entries; others have their underscores taken out."""


@dataclass
class Ranking:
    """The rows of a protocol by one score.

    Args:
        rows: comparable ones.
        metric: such as ``crps``.
        settings: the columns; all of the rows' where empty.

    Raises:
        GapzooError: where no row has the score or the setting.
    """

    rows: list[dict[str, Any]]
    metric: str
    settings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        every = list(dict.fromkeys(s for row in self.rows for s in row["scores"]))
        for wanted in self.settings:
            if wanted not in every:
                raise GapzooError(f"rows have no setting '{wanted}'; {nearest(wanted, every)}")
        self.settings = self.settings or tuple(every)
        known = {n for row in self.rows for s in row["scores"].values() for n in s}
        if self.metric not in known:
            name = self.rows[0]["protocol"]
            raise GapzooError(
                f"rows of '{name}' have no '{self.metric}'; {nearest(self.metric, known)}"
            )
        self.rows = sorted(self.rows, key=self._order)

    def value(self, row: dict[str, Any], setting: str) -> float | None:
        """A score, or None."""
        return row["scores"].get(setting, {}).get(self.metric)

    @cached_property
    def best(self) -> dict[str, int]:
        """Position of the best row of each setting; empty where none is better than another."""
        if not self.told.better or len(self.rows) < 2:
            return {}
        found = {}
        for setting in self.settings:
            values = {n: self.value(row, setting) for n, row in enumerate(self.rows)}
            there = {n: self.told.badness(v) for n, v in values.items() if v is not None}
            if there:
                found[setting] = min(there, key=there.__getitem__)
        return found

    @cached_property
    def told(self) -> metrics.Metric:
        """What is known of the score."""
        return metrics.metric(self.metric, self.rows)

    @cached_property
    def alike(self) -> set[tuple[int, str]]:
        """(row, setting) of those that cannot be told from the best."""
        found = set()
        for winner in set(self.best.values()):
            for n, row in enumerate(self.rows):
                against = contrasts(row, self.rows[winner], self.metric) if n != winner else {}
                mine = [s for s in against if self.best.get(s) == winner]
                found |= {(n, s) for s in mine if against[s].p >= SIGNIFICANT}
        return found

    def cells(self, n: int, bold: str, intervals: bool = False) -> list[str]:
        """The cells of a row; ``bold`` is a format for the best."""
        row, found = self.rows[n], []
        ranges = bounds(row, self.metric) if intervals else {}
        digits = self.told.digits
        for setting in self.settings:
            value = self.value(row, setting)
            text = "" if value is None else f"{value:.{digits}f}"
            text = "diverged" if value is not None and math.isinf(value) else text
            text = bold.format(text) if self.best.get(setting) == n else text
            text += f" {MARK}" if (n, setting) in self.alike else ""
            if setting in ranges:
                text += "\n{:.3f} to {:.3f}".format(*ranges[setting])
            found.append(text)
        return found

    def note(self) -> str:
        """What the marks rest on."""
        if not self.best:
            return ""
        kept = [row for row in self.rows if testable(row)]
        if len(kept) < len(self.rows):
            why = "too few initial times, or rows made before their scores were kept"
            return f"Bold is best; which ranks are real is not tested: {why}."
        first = kept[0]
        times, size = len(first["initial_times"]), block(first)
        draws = "paired bootstrap" if size == 1 else f"paired bootstrap in blocks of {size}"
        return (
            f"Bold is best; {MARK} cannot be told from the best (p >= {SIGNIFICANT}, {draws} over "
            f"{times} initial times)."
        )

    def _order(self, row: dict[str, Any]) -> float:
        values = [v for s in self.settings if (v := self.value(row, s)) is not None]
        if not values:
            return float("inf")
        return sum(self.told.badness(v) if self.told.better else v for v in values) / len(values)


def table(ranking: Ranking, intervals: bool = False) -> Table:
    """Entries by settings (densities or leads) for one score.

    Args:
        ranking: rows and score.
        intervals: write the 95 % interval below each score.
    """
    rows_ = range(len(ranking.rows))
    cells = {row_name(ranking.rows[n]): ranking.cells(n, "[bold]{}[/]", intervals) for n in rows_}
    return _table(ranking, ranking.told.title, cells)


def against(ranking: Ranking, name: str) -> Table:
    """Differences of all rows from one, each with its 95 % interval and p-value.

    Args:
        ranking: rows and score.
        name: of the reference.

    Raises:
        GapzooError: where no row is so called.
    """
    known = {label(row): row for row in ranking.rows}
    if name not in known:
        raise GapzooError(f"no row '{name}'; {nearest(name, known)}")
    cells, reference = {}, known.pop(name)
    for row in known.values():
        tested = contrasts(row, reference, ranking.metric)
        found = [_difference(ranking, row, reference, s, tested) for s in ranking.settings]
        cells[row_name(row)] = found
    text = f"{ranking.told.title} less that of {title(name)}, p-value, 95 % interval"
    return _table(ranking, text, cells)


def costs(every: list[dict[str, Any]]) -> Table:
    """Seconds that rows took, and on what."""
    out = Table(title="seconds of all cases")
    for name in ("entry", "wall", "CPU", "of it scoring", "device"):
        out.add_column(name, justify="left" if name in ("entry", "device") else "right")
    for row in every:
        out.add_row(row_name(row), *_seconds(row), str(row.get("device", "")))
    return out


def _seconds(row: dict[str, Any]) -> list[str]:
    spent = [row.get(f"{kind}_seconds") for kind in ("wall", "cpu", "scoring")]
    return ["" if s is None else f"{s:.0f}" if s >= 10 else f"{s:.1f}" for s in spent]


def _table(ranking: Ranking, text: str, cells: dict[str, list[str]]) -> Table:
    """Entries downwards, or across where their settings would not fit a terminal."""
    corner, across, down = "entry", heads(ranking), list(cells)
    body = list(cells.values())
    widest = [max(_width(c) for c in column) for column in zip(*body, strict=True)]
    if max(map(len, down), default=0) + sum(3 + w for w in widest) > TERMINAL:
        corner, across, down = "", down, across
        body = [list(column) for column in zip(*body, strict=True)]
    out = Table(title=f"{ranking.rows[0]['protocol']}: {text}", title_justify="left")
    for name in (corner, *across):
        out.add_column(name, justify="left" if name == corner else "right", overflow="fold")
    for name, values in zip(down, body, strict=True):
        out.add_row(name, *values)
    return out


def _width(cell: str) -> int:
    return max(len(line) for line in Text.from_markup(cell).plain.split("\n"))


def _difference(
    ranking: Ranking,
    row: dict[str, Any],
    other: dict[str, Any],
    setting: str,
    tested: dict[str, Contrast],
) -> str:
    if setting in tested:
        found = tested[setting]
        range_ = f"{found.low:+.3f} to {found.high:+.3f}"
        return f"{found.difference:+.3f}, p {found.p:.3f}\n{range_}"
    a, b = ranking.value(row, setting), ranking.value(other, setting)
    return "" if a is None or b is None else f"{a - b:+.3f}, not tested"


def markdown(
    protocol: str,
    metric: str = "crps",
    folder: Path = FOLDER,
    settings: tuple[str, ...] = (),
    below: tuple[str, ...] = (),
    contrast: tuple[str, ...] = (),
    cost: tuple[str, ...] = (),
    without: tuple[str, ...] = (),
) -> str:
    """The same as Markdown, with what its numbers depend on below it.

    Args:
        protocol: with rows.
        metric: the table's score.
        folder: of the rows.
        settings: the columns; all where empty.
        below: further scores, a line an entry that has them.
        contrast: names of two rows: adds how far the first is from the second, relatively.
        cost: ``seconds`` adds three columns: wall, CPU and scoring seconds of all cases.
        without: names of rows that are no competitors, such as a perfect model.

    Raises:
        GapzooError: without rows, or where a row to leave out is not there.
    """
    every = others(found(protocol, folder), without)
    ranking = Ranking(every, metric, settings)
    names = heads(ranking)
    names += ["wall s", "CPU s", "of it scoring"] if cost else []
    lines = [f"| {ranking.told.title} | {' | '.join(names)} |", "|---|" + "---|" * len(names)]
    for n, row in enumerate(ranking.rows):
        cells = ranking.cells(n, "**{}**") + (_seconds(row) if cost else [])
        lines.append(f"| {row_name(row)} | {' | '.join(cells)} |")
    if contrast:
        lines.append(_contrast(ranking, *contrast))
    for other in below:
        extra = Ranking(ranking.rows, other, ranking.settings)
        for row in ranking.rows:
            if any(extra.value(row, s) is not None for s in extra.settings):
                cells = extra.cells(extra.rows.index(row), "{}")
                lines.append(f"| {extra.told.title} of {title(label(row))} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", " ".join(part for part in (made(every), ranking.note()) if part)])


def others(every: list[dict[str, Any]], without: tuple[str, ...]) -> list[dict[str, Any]]:
    """Rows but some; raises GapzooError for a name that none has."""
    names = [label(row) for row in every]
    for name in without:
        if name not in names:
            raise GapzooError(f"no row '{name}' to leave out; {nearest(name, names)}")
    return [row for row in every if label(row) not in without]


def found(protocol: str, folder: Path) -> list[dict[str, Any]]:
    """Rows of a protocol; raises GapzooError where there are none."""
    every = rows(protocol, folder)
    if not every:
        raise GapzooError(f"no rows of protocol '{protocol}' in {folder}; run an entry first")
    return every


def heads(ranking: Ranking) -> list[str]:
    """Columns as readers say them."""
    return [setting_name(s) for s in ranking.settings]


def setting_name(setting: str) -> str:
    """A density (at most 1) as percent, a lead in hours as day or hours, else as it is."""
    if not is_number(setting):
        return setting.replace("_", " ")
    value = float(setting)
    if value <= 1:
        return f"{100 * value:g} %"
    return f"day {value / 24:g}" if value % 24 == 0 else f"{value:g} h"


def is_number(text: str) -> bool:
    """Whether a setting is a density or a lead."""
    return text.replace(".", "", 1).isdigit()


def row_name(row: dict[str, Any]) -> str:
    """A row's name for readers; a single member's CRPS is its absolute error, so it says so."""
    scores = list(row["scores"].values())
    single = row.get("members", 1) > 1 and all("crps" in s and "ranks" not in s for s in scores)
    return title(label(row)) + (" (one member)" if single else "")


def _contrast(ranking: Ranking, *names: str) -> str:
    """A line of relative differences of the first row from the second."""
    known = {label(row): row for row in ranking.rows}
    for name in names:
        if name not in known:
            raise GapzooError(f"no row '{name}'; {nearest(name, known)}")
    if len(names) != 2:
        raise GapzooError("contrast needs two rows: contrast=FIRST,SECOND")
    first, second = (known[name] for name in names)
    tested, cells = contrasts(first, second, ranking.metric), []
    for setting in ranking.settings:
        a, b = ranking.value(first, setting), ranking.value(second, setting)
        text = "" if a is None or b is None else f"{100 * (a / b - 1):+.1f} %"
        unsure = setting in tested and tested[setting].p >= SIGNIFICANT
        cells.append(text + (f" {MARK}" if unsure else ""))
    return f"| {title(names[0])} against {title(names[1])} | {' | '.join(cells)} |"


def title(name: str) -> str:
    """An entry's name for readers."""
    return NAMES.get(name, name.replace("_", " "))


def made(every: list[dict[str, Any]]) -> str:
    """What a table's numbers depend on: cases, members, seed, device, dates."""
    first = every[0]
    dates = sorted({row["date"] for row in every if "date" in row})
    devices = ", ".join(dict.fromkeys(row["device"] for row in every if "device" in row))
    parts = [f"{first[k]} {k}" for k in ("cases", "members") if k in first]
    parts += [f"seed {first['seed']}"] if "seed" in first else []
    parts += [f"{first['estimator']} CRPS"] if "estimator" in first else []
    parts += [devices] if devices else []
    parts += [" to ".join(dict.fromkeys((dates[0], dates[-1])))] if dates else []
    text = ", ".join(parts)
    return text[:1].upper() + text[1:] + "." if text else ""
