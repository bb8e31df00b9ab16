"""Linear in time: observations between the times of several states.

With states x_1 .. x_T at times t_1 < .. < t_T and an observation at t in [t_k, t_k+1],

    y = (1 - w) H x_k + w H x_k+1,      w = (t - t_k) / (t_k+1 - t_k).

The states are stacked along their channels, (T*C, H, W), which keeps the operator one of gather
and weights: it takes ``states.flatten(-4, -3)`` of (..., T, C, H, W), and its adjoint gives it.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import torch

from gapzoo.core import GapzooError
from gapzoo.data.observations.operators import LinearObservationOperator


def in_time(
    operator: LinearObservationOperator, seen: pd.DatetimeIndex, states: pd.DatetimeIndex
) -> LinearObservationOperator:
    """The operator on states (..., T*C, H, W) of several times.

    Args:
        operator: on a state (C, H, W), N observations.
        seen: (N,) times of the observations.
        states: (T,) times of the states, ascending, two or more.

    Raises:
        GapzooError: for an observation before the first or after the last state.
    """
    known = states.to_numpy("datetime64[ns]").astype(np.int64)
    wanted = seen.to_numpy("datetime64[ns]").astype(np.int64)
    if len(known) < 2 or (np.diff(known) <= 0).any() or len(wanted) != len(operator):
        raise GapzooError("states need two or more ascending times, observations a time each")
    outside = np.flatnonzero((wanted < known[0]) | (wanted > known[-1]))
    if len(outside):
        row = int(outside[0])
        raise GapzooError(f"observation {row} at {seen[row]}: outside {states[0]} to {states[-1]}")
    first = np.clip(np.searchsorted(known, wanted, "right") - 1, 0, len(known) - 2)
    later = (wanted - known[first]) / (known[first + 1] - known[first])
    start, share = torch.from_numpy(first)[:, None], torch.from_numpy(later).float()[:, None]
    size = int(np.prod(operator.shape))
    index = torch.cat([operator.index + k * size for k in (start, start + 1)], 1)
    weights = torch.cat([operator.weights * w for w in (1 - share, share)], 1)
    nearest = start[:, 0] + (share[:, 0] > 0.5)
    return replace(
        operator.subset(torch.arange(len(operator))),
        index=index,
        weights=weights,
        channel=operator.channel + nearest * operator.shape[0],
        shape=(len(states) * operator.shape[0], *operator.shape[1:]),
    )
