"""Random points: single values of random channels at random places between the grid points."""

from __future__ import annotations

import numpy as np
import torch

from gapzoo.core import Channels, GapzooError, Grid
from gapzoo.data.observations.networks import NETWORKS, as_numpy
from gapzoo.data.observations.operators import LinearObservationOperator, build_operator


@NETWORKS.register("random_points")
def random_points(
    grid: Grid,
    channels: Channels,
    generator: torch.Generator | int,
    fraction: float = 0.1,
    between: bool = True,
) -> LinearObservationOperator:
    """As many values as ``fraction`` of the state, evenly on the sphere and in the log of level.

    Args:
        between: between the levels as well; else each on its channel's own.

    Raises:
        GapzooError: where the fraction is not above 0.
    """
    if not fraction > 0:
        raise GapzooError(f"fraction {fraction} of the state; give one above 0")
    rng = as_numpy(generator)
    count = max(1, round(fraction * len(channels) * grid.shape[0] * grid.shape[1]))
    latitude = np.rad2deg(np.arcsin(rng.uniform(-1, 1, count)))
    chosen = [channels[int(i)] for i in rng.integers(len(channels), size=count)]
    variable = np.array([c.variable for c in chosen])
    level = np.array([np.nan if c.level is None else c.level for c in chosen])
    aloft = dict.fromkeys(c.variable for c in channels if c.level is not None)  # in this order
    for name in aloft if between else ():
        rows, own = variable == name, [channels[i].level or 1.0 for i in channels.of(name)]
        low, high = np.log(min(own)), np.log(max(own))
        level[rows] = np.exp(rng.uniform(low, high, rows.sum())).clip(min(own), max(own))
    return build_operator(grid, channels, latitude, rng.uniform(0, 360, count), variable, level)
