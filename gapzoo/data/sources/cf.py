"""Source ``cf``: any gridded data set that xarray opens; see gapzoo.data.gridded."""

from __future__ import annotations

from gapzoo.data import SOURCES
from gapzoo.data.gridded import GriddedSource

SOURCES.register("cf")(GriddedSource)
