"""Networks of observations by name; one file a network.

Each is a function of ``(grid, channels, generator, **options)`` that gives a linear operator;
``generator`` is a torch.Generator or a seed. ``standard_errors`` gives the errors to it.
"""

from __future__ import annotations

import numpy as np
import torch

from gapzoo.core import Channels, Grid, Registry
from gapzoo.data.observations.operators import LinearObservationOperator, build_operator

NETWORKS = Registry("network", "gapzoo.data.observations.networks")
"""Generators of networks by name."""


def as_numpy(generator: torch.Generator | int) -> np.random.Generator:
    """A numpy stream that is started from a torch one, or from a seed."""
    if isinstance(generator, int):
        generator = torch.Generator().manual_seed(generator)
    return np.random.default_rng(int(torch.randint(2**62, (1,), generator=generator)))


def soundings(
    grid: Grid, channels: Channels, latitude: np.ndarray, longitude: np.ndarray
) -> LinearObservationOperator:
    """Every channel at n places, channel by channel (C*n observations)."""
    count, places = len(channels), len(latitude)
    level = np.array([np.nan if c.level is None else c.level for c in channels])
    return build_operator(
        grid,
        channels,
        np.tile(latitude, count),
        np.tile(longitude, count),
        np.repeat([c.variable for c in channels], places),
        np.repeat(level, places),
    )


__all__ = ["NETWORKS", "as_numpy", "soundings"]
