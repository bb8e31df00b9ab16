"""Observations of an archive: what a network would have seen had the archive been the atmosphere.

    y = H(x) + e,      e ~ N(0, R)   with the standard errors (``columns.STANDARD_ERRORS``)

For trying assimilation out where the truth is known. The network stays where it is; the errors of
a time depend on the seed and that time alone, so that two periods that overlap agree there.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gapzoo.core import Channels, GapzooError, nearest
from gapzoo.core.random import derive_seed
from gapzoo.data.archive import Archive
from gapzoo.data.observations.columns import simulate, standard_errors
from gapzoo.data.observations.form import Observations
from gapzoo.data.observations.networks import NETWORKS
from gapzoo.data.observations.operators import LinearObservationOperator, operator_for

PRESSURE = "surface_pressure"


def observe(
    archive: Archive,
    positions: np.ndarray,
    network: str = "random_columns",
    seed: int = 0,
    variables: Sequence[str] | None = None,
    progress: Callable[[int], None] | None = None,
    **options: Any,
) -> Observations:
    """A table of simulated observations, time after time.

    Args:
        archive: the truth.
        positions: its steps that are observed.
        network: registered name.
        seed: of places and errors.
        variables: that are observed; those on levels and surface pressure where None.
        progress: called with 1 after each time.
        options: of the network (``fraction=0.1``); a land mask comes from the archive.

    Raises:
        GapzooError: for no step, an unknown network or option, or a network that observes between
            levels, which this table cannot say.
    """
    if not len(positions):
        raise GapzooError(f"no step of {archive.path} to observe; check start, end and every")
    channels = archive.channels.select(variables or _sounded(archive.channels))
    keep = [archive.channels.index(channel) for channel in channels]
    operator = _places(archive, channels, network, seed, options)
    errors, parts = standard_errors(operator, channels), []
    for position in positions:
        time = archive.times[position]
        truth = torch.from_numpy(archive.read("state", np.array([position]), keep))[0]
        y = simulate(truth, operator, errors, derive_seed(seed, "observations", time))
        parts.append(Observations.from_operator(operator, channels, y, errors, time, network))
        if len(parts) == 1:
            again = operator_for(parts[0], archive.grid, channels)
            _require_same(again(truth), operator(truth), errors, network)
        if progress:
            progress(1)
    return Observations.concatenate(parts)


def _require_same(again: Tensor, seen: Tensor, errors: Tensor, network: str) -> None:
    """Whoever reads the table finds the operator that it was made with: (N,) values alike."""
    if ((again - seen).abs() > 1e-2 * errors).any():
        raise GapzooError(
            f"network '{network}' observes between levels; take one on the levels, random_points "
            "with between=false"
        )


def _sounded(channels: Channels) -> list[str]:
    """Variables on levels, and surface pressure."""
    names = [c.variable for c in channels if c.level is not None or c.variable == PRESSURE]
    return list(dict.fromkeys(names))


def _places(
    archive: Archive, channels: Channels, network: str, seed: int, options: dict[str, Any]
) -> LinearObservationOperator:
    """The network's operator on states in SI units."""
    make = NETWORKS[network]
    known = list(inspect.signature(make).parameters)[3:]
    for name in options:
        if name not in known:
            raise GapzooError(f"network '{network}' has no '{name}'; {nearest(name, known)}")
    if "land" in known and "land_sea_mask" in archive.attributes["static_channels"]:
        options = {"land": archive.static("land_sea_mask"), **options}
    found: LinearObservationOperator = make(
        archive.grid, channels, derive_seed(seed, "network"), **options
    )
    return found
