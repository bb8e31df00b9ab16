"""CSV: a header with the names of the columns; times in ISO form, ``level_kind`` in every row."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from gapzoo.core import GapzooError
from gapzoo.data.observations.form import Observations
from gapzoo.data.observations.readers import READERS, WRITERS, kind_of_levels


@READERS.register(".csv")
def read_csv(path: Path, level_kind: str | None = None) -> Observations:
    """Read a table; ``level_kind`` overrides what the file says, and is for those that don't."""
    try:
        table = pd.read_csv(path, dtype={"station": str, "type": str})
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise GapzooError(f"no table of comma-separated columns: {error}") from error
    said = list(table["level_kind"].dropna().unique()) if "level_kind" in table else []
    if len(said) > 1 and not level_kind:
        raise GapzooError(f"levels of {' and '.join(map(str, said))}; write a file for each kind")
    kind = kind_of_levels(table.get("level"), said[0] if len(said) else None, level_kind)
    return Observations(table, kind)


@WRITERS.register(".csv")
def write_csv(observations: Observations, path: Path) -> None:
    """Write a table, the kind of its levels in a column."""
    observations.table.assign(level_kind=observations.level_kind).to_csv(path, index=False)
