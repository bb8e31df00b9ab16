"""Scores of ``gapzoo.evaluate`` as tables for a terminal: one a metric, region and season."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import xarray as xr
from rich.table import Table

from gapzoo.evaluators.align import LEAD
from gapzoo.evaluators.saved import rows

MOST = 8
"""Leads in a table; the files have all."""


def tables(scores: xr.Dataset, what: str = "", width: int = 80) -> Iterator[Table]:
    """Scores that have no axis of their own, at as many leads as fit without a label being folded.

    Args:
        scores: from ``gapzoo.evaluate``.
        what: goes before the titles.
        width: columns of the terminal.
    """
    plain = {n: a for n, a in scores.data_vars.items() if "metric" in a.dims}
    if not plain:
        return
    leads = scores[LEAD].values
    cells = list(rows(plain, np.arange(len(leads))))
    at = _spread(len(leads), _fitting([[row[0], *row[-len(leads) :]] for row in cells], width))
    heads, after = [_lead(leads[k]) for k in at], f"{scores.attrs['initial_times']} initial times"

    def words(row: list[str]) -> tuple[str, ...]:
        return tuple(row[1 : -len(leads)])

    for group, mine in itertools.groupby(sorted(cells, key=words), key=words):
        table = Table(title=f"{what}{', '.join(group)}: {after}", title_justify="left")
        table.add_column("field", overflow="fold")
        for head in heads:
            table.add_column(head, justify="right", no_wrap=True)
        for row in mine:
            table.add_row(row[0], *(row[len(row) - len(leads) + k] for k in at))
        yield table


def apart(scores: xr.Dataset) -> list[str]:
    """Names of the scores that have axes of their own."""
    return [str(n) for n, a in scores.data_vars.items() if "metric" not in a.dims]


def _fitting(cells: list[list[str]], width: int) -> int:
    """How many columns of numbers fit beside the first one, at least one."""
    field = max(len("field"), *(len(row[0]) for row in cells))
    number = max(len(text) for row in cells for text in row[1:])
    return max(1, min(MOST, (width - field - 4) // (number + 3)))


def _spread(count: int, wanted: int) -> np.ndarray:
    """Positions evenly over all, the first and last among them where there are two or more."""
    return np.unique(np.linspace(0, count - 1, min(wanted, count)).round().astype(int))


def _lead(lead: Any) -> str:
    hours = lead / np.timedelta64(1, "h")
    return f"{hours / 24:g} d" if hours % 24 == 0 else f"{hours:g} h"
