"""Parquet: the table with the kind of its levels in the attributes; needs pyarrow."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from gapzoo.core import GapzooError
from gapzoo.data.observations.form import Observations
from gapzoo.data.observations.readers import READERS, WRITERS, kind_of_levels

_FIX = "reading and writing Parquet needs pyarrow: pip install pyarrow"


@READERS.register(".parquet")
def read_parquet(path: Path, level_kind: str | None = None) -> Observations:
    """Read a table; ``level_kind`` overrides what the file says."""
    try:
        table = pd.read_parquet(path)
    except ImportError as error:
        raise GapzooError(_FIX) from error
    except ValueError as error:
        raise GapzooError(f"no Parquet table: {error}") from error
    said = table.attrs.get("level_kind")
    return Observations(table, kind_of_levels(table.get("level"), said, level_kind))


@WRITERS.register(".parquet")
def write_parquet(observations: Observations, path: Path) -> None:
    """Write a table, the kind of its levels with it."""
    table = observations.table.copy()
    table.attrs["level_kind"] = observations.level_kind
    try:
        table.to_parquet(path, index=False)
    except ImportError as error:
        raise GapzooError(_FIX) from error
