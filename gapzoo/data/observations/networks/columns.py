"""Random columns of the grid, all channels: the default network of the assimilation track."""

from __future__ import annotations

import torch

from gapzoo.core import Channels, Grid
from gapzoo.data.observations.columns import ColumnStations, station_columns
from gapzoo.data.observations.networks import NETWORKS


@NETWORKS.register("random_columns")
def random_columns(
    grid: Grid,
    channels: Channels,
    generator: torch.Generator | int,
    fraction: float = 0.1,
    by_area: bool = False,
) -> ColumnStations:
    """``fraction`` of the columns; each equally likely, or evenly on the sphere."""
    return station_columns(grid, channels, fraction, generator, by_area)
