"""A log that survives resuming: ``metrics.csv`` with the rows ``step,name,value``."""

from __future__ import annotations

import argparse
import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities.rank_zero import rank_zero_only

COLUMNS = ("step", "name", "value")


class RunLog(Logger):
    """Append metrics to ``metrics.csv`` in the run folder.

    Args:
        folder: the run folder.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.path = Path(folder) / "metrics.csv"

    @property
    def name(self) -> str:
        """The run folder's name."""
        return self.path.parent.name

    @property
    def version(self) -> str:
        """None needed: a run is one log."""
        return ""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Append one row a metric."""
        rows = [(step, name, f"{value:.7g}") for name, value in metrics.items()]
        self._write(rows)

    @rank_zero_only
    def log_hyperparams(
        self, params: dict[str, Any] | argparse.Namespace, *args: Any, **kwargs: Any
    ) -> None:
        """Nothing: the run folder's recipe holds them."""

    @rank_zero_only
    def rewind(self, step: int) -> None:
        """Drop the rows after ``step``, which a resumed run writes again."""
        if self.path.exists():
            with self.path.open(newline="") as file:
                rows = [tuple(row) for row in list(csv.reader(file))[1:]]
            self.path.unlink()
            self._write([row for row in rows if int(row[0]) <= step])

    def _write(self, rows: list[Any]) -> None:
        fresh = not self.path.exists()
        with self.path.open("a", newline="") as file:
            writer = csv.writer(file)
            writer.writerows([COLUMNS, *rows] if fresh else rows)
