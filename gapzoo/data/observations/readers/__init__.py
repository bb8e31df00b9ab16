"""Readers and writers of observation tables by file suffix; one file a format."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from gapzoo.core import GapzooError, Registry
from gapzoo.data.observations.form import Observations

READERS = Registry("observation reader", "gapzoo.data.observations.readers")
"""Functions of a path by suffix (``.csv``); each returns Observations."""
WRITERS = Registry("observation writer", "gapzoo.data.observations.readers")
"""Functions of Observations and a path by suffix."""


def read_observations(path: str | Path, **options: Any) -> Observations:
    """Read a file by its suffix; ``options`` go to the reader (e.g. ``level_kind``).

    Raises:
        GapzooError: where the file is absent, of unknown suffix or not readable.
    """
    path = Path(path)
    if not path.is_file():
        raise GapzooError(f"no observation file '{path}'; give the path of a table")
    try:
        return READERS[path.suffix](path, **options)
    except (OSError, UnicodeDecodeError) as error:
        raise GapzooError(f"cannot read observations '{path}': {error}") from error
    except GapzooError as error:
        raise GapzooError(f"{path}: {error}") from error


def kind_of_levels(levels: Any, said: Any, given: str | None) -> str:
    """The kind that was ``given``, else what the file ``said``, else pressure.

    Raises:
        GapzooError: where neither is and the levels are those of sigma.
    """
    if given or said:
        return str(given or said)
    known = pd.to_numeric(pd.Series(levels), errors="coerce").dropna()
    if len(known) and (known <= 1).all():
        raise GapzooError(
            "no level is above 1, and the file has no 'level_kind': give --level-kind sigma (or "
            "pressure, if they are hPa), or add that column"
        )
    return "pressure"


def write_observations(observations: Observations, path: str | Path) -> None:
    """Write a file by its suffix."""
    path = Path(path)
    WRITERS[path.suffix](observations, path)


__all__ = ["READERS", "WRITERS", "kind_of_levels", "read_observations", "write_observations"]
