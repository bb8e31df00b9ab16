"""CSV: a header with the names of the columns; times in ISO form."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from gapzoo.core import GapzooError
from gapzoo.data.observations.form import Observations
from gapzoo.data.observations.readers import READERS, WRITERS


@READERS.register(".csv")
def read_csv(path: Path, level_kind: str = "pressure") -> Observations:
    """Read a table; the kind of its levels is not in it, so say it."""
    try:
        table = pd.read_csv(path, dtype={"station": str, "type": str})
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise GapzooError(f"no table of comma-separated columns: {error}") from error
    return Observations(table, level_kind)


@WRITERS.register(".csv")
def write_csv(observations: Observations, path: Path) -> None:
    """Write a table; the kind of the levels is lost."""
    observations.table.to_csv(path, index=False)
