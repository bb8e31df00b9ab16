"""Stations that observe whole columns of the grid: every channel at n grid points.

This is the default network of the assimilation track. Every grid column is equally likely, so
stations crowd towards the poles as the columns do; ``by_area=True`` draws them evenly on the
sphere instead. The first stations of one seed are the same at every density.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gapzoo.core import Channels, GapzooError, Grid, nearest
from gapzoo.data.observations.operators import LinearObservationOperator

STANDARD_ERRORS = {
    "u_component_of_wind": 1.0,
    "v_component_of_wind": 1.0,
    "temperature": 1.0,
    "specific_humidity": 1e-3,
    "geopotential": 100.0,
    "surface_pressure": 100.0,
    "mean_sea_level_pressure": 100.0,
    "2m_temperature": 1.0,
    "2m_dewpoint_temperature": 2.0,
    "10m_u_component_of_wind": 1.0,
    "10m_v_component_of_wind": 1.0,
    "10m_wind_speed": 1.0,
    "sea_surface_temperature": 0.5,
}
"""Standard deviation of an observation's error by variable, SI units (Miyoshi's SPEEDY-LETKF for
wind, temperature, humidity and surface pressure)."""


@dataclass(frozen=True)
class ColumnStations(LinearObservationOperator):
    """All channels at n grid points; N = C*n observations, channel by channel.

    ``columns`` (n,2) long holds the row and column of each station; ``y.unflatten(-1, (C, n))``
    gives the soundings back.
    """

    columns: Tensor

    @classmethod
    def at(cls, columns: Tensor, grid: Grid, channels: Channels) -> ColumnStations:
        """Stations at the grid points ``columns`` (n,2).

        Raises:
            GapzooError: for a point outside the grid.
        """
        height, width = grid.shape
        row, col = columns.long().unbind(-1)
        if len(columns) == 0 or ((row < 0) | (row >= height) | (col < 0) | (col >= width)).any():
            raise GapzooError(
                f"stations must lie within the {height}x{width} grid; give (row, col)"
            )
        count = len(channels)
        layer = torch.arange(count).unsqueeze(-1)
        index = (layer * (height * width) + row * width + col).reshape(-1, 1)
        return cls(
            index=index,
            weights=torch.ones(index.shape),
            shape=(count, height, width),
            latitude=torch.tensor(grid.latitude)[row].repeat(count),
            longitude=torch.tensor(grid.longitude)[col].repeat(count),
            channel=layer.expand(count, len(row)).flatten(),
            columns=columns.long(),
        )


def station_columns(
    grid: Grid,
    channels: Channels,
    fraction: float,
    generator: torch.Generator | int,
    by_area: bool = False,
) -> ColumnStations:
    """Random columns: ``fraction`` of all of them, without repetition.

    Args:
        generator: a CPU generator, or a seed.
        by_area: draw evenly on the sphere rather than evenly among the columns.

    Raises:
        GapzooError: where the fraction is not within (0, 1].
    """
    if not 0 < fraction <= 1:
        raise GapzooError(f"fraction {fraction} of the columns; give one within (0, 1]")
    if isinstance(generator, int):
        generator = torch.Generator().manual_seed(generator)
    height, width = grid.shape
    count = max(1, round(fraction * height * width))
    chances = torch.as_tensor(grid.area_weights if by_area else [1.0] * height)
    # Exponential races draw without repetition; sorting makes the networks of a seed nested.
    waits = -torch.log(torch.rand(height, width, generator=generator, dtype=torch.float64))
    chosen = (waits / chances.unsqueeze(-1)).flatten().argsort()[:count]
    columns = torch.stack([chosen // width, chosen % width], dim=-1)
    return ColumnStations.at(columns, grid, channels)


def standard_errors(operator: LinearObservationOperator, channels: Channels) -> Tensor:
    """(N,) float32 error standard deviations in SI units, by the variable observed.

    Raises:
        GapzooError: for a variable that has no standard error.
    """
    names = [channel.variable for channel in channels]
    for name in {names[int(i)] for i in operator.channel.unique()}:
        if name not in STANDARD_ERRORS:
            raise GapzooError(f"no standard error of '{name}'; {nearest(name, STANDARD_ERRORS)}")
    by_channel = torch.tensor([STANDARD_ERRORS.get(name, torch.nan) for name in names])
    return by_channel.to(operator.channel.device)[operator.channel]


def simulate(
    truth: Tensor,
    operator: LinearObservationOperator,
    errors: Tensor,
    generator: torch.Generator | int,
) -> Tensor:
    """Observations of a nature run: y = H(truth) + errors * N(0, 1).

    Args:
        truth: (C,H,W) or (B,C,H,W), in the units of the operator.
        errors: (N,) standard deviations. Humidity is not clipped: the errors stay Gaussian.
        generator: a CPU generator, or a seed.

    Returns:
        (N,) or (B,N).
    """
    if isinstance(generator, int):
        generator = torch.Generator().manual_seed(generator)
    exact = operator(truth)
    noise = torch.randn(exact.shape, generator=generator).to(exact)
    return exact + errors.to(exact) * noise
