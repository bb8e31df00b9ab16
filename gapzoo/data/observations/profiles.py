"""Observations on pressure levels and at stations, of a world on sigma levels.

At a place a column x_1 .. x_K lies at s_k = ln sigma_k, s_1 < .. < s_K, over the surface pressure
ps, all interpolated bilinearly. An observation at pressure p is compared with

    s = ln(p / ps),    H(x) = x_k + w (x_k+1 - x_k),    w = (s - s_k) / (s_k+1 - s_k)

which moves with the state's own ps: linear in each variable, not in ps. Above the highest level the
value is constant; below the lowest as well, but temperature follows the standard lapse rate there
and on below the ground, as in ``gapzoo.core.pressure``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gapzoo.core import Channels, GapzooError, Grid
from gapzoo.core.pressure import EXPONENT
from gapzoo.data.observations.form import Observations
from gapzoo.data.observations.nonlinear import NonlinearOperator, StationPressure
from gapzoo.data.observations.operators import LinearObservationOperator, build_operator


@dataclass(frozen=True)
class OnPressure(NonlinearOperator):
    """N profile values at pressures; ``place`` observes the lowest level of each variable.

    Args:
        columns: observes each one's variable at all K levels, highest first: N*K values.
        pressure: observes the surface pressure, N values.
        target: (N,) ln of the pressure in Pa.
        knots: (K,) ln sigma, ascending.
        exponent: (N,) of p / p_K below the lowest level.
    """

    columns: LinearObservationOperator
    pressure: LinearObservationOperator
    target: Tensor
    knots: Tensor
    exponent: Tensor

    @classmethod
    def at(
        cls,
        grid: Grid,
        channels: Channels,
        latitude: np.ndarray,
        longitude: np.ndarray,
        variable: np.ndarray,
        pressure: np.ndarray,
    ) -> OnPressure:
        """At N places (degrees), of N variables, at N pressures (hPa).

        Raises:
            GapzooError: for channels without surface pressure, or not on sigma levels.
        """
        if channels.level_kind != "sigma":
            raise GapzooError("channels are on pressure levels already; use operator_for")
        variable = np.asarray(variable)
        names = list(dict.fromkeys(variable.tolist()))
        levels = sorted({channels[i].level or 0.0 for name in names for i in channels.of(name)})
        count = len(levels)
        place = (np.repeat(latitude, count), np.repeat(longitude, count))
        at = (np.repeat(variable, count), np.tile(levels, len(variable)))
        columns = build_operator(grid, channels, *place, *at)
        where = (latitude, longitude)
        surface = (np.full(len(variable), "surface_pressure"), np.full(len(variable), np.nan))
        return cls(
            columns.subset(torch.arange(count - 1, len(columns), count)),
            columns,
            build_operator(grid, channels, *where, *surface),
            torch.from_numpy(np.log(100.0 * np.asarray(pressure, float))),
            torch.from_numpy(np.log(levels)),
            torch.from_numpy(np.where(variable == "temperature", EXPONENT, 0.0)),
        )

    @property
    def channel(self) -> Tensor:
        """(N,) the channel at the level nearest to where a ground at 1000 hPa puts it."""
        wanted = self.target - float(np.log(1e5))
        nearest = (wanted[:, None] - self.knots).abs().argmin(1)
        return self.columns.channel.unflatten(0, (len(self), -1))[torch.arange(len(self)), nearest]

    def sigma(self, x: Tensor) -> Tensor:
        """(..., N) p / ps of the observations in states (..., C, H, W)."""
        return torch.exp(self.target.to(x) - self.pressure(x).log())

    def __call__(self, x: Tensor) -> Tensor:
        """(..., C, H, W) -> (..., N)."""
        column = self.columns(x).unflatten(-1, (len(self), -1))
        lower, weight, factor = self._stencil(x)
        ends = torch.stack([lower - 1, lower], -1)
        upper, under = column.take_along_dim(ends, -1).unbind(-1)
        return (upper + weight * (under - upper)) * factor

    def _stencil(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(..., N) lower level, its weight, and the factor below the lowest level."""
        knots = self.knots.to(x)
        s = self.target.to(x) - self.pressure(x).log()
        inside = s.clamp(knots[0], knots[-1])
        lower = torch.searchsorted(knots, inside.detach().contiguous()).clamp(1, len(knots) - 1)
        weight = (inside - knots[lower - 1]) / (knots[lower] - knots[lower - 1])
        below = (s - knots[-1]).clamp_min(0.0)
        return lower, weight, torch.exp(self.exponent.to(x) * below)

    def frozen(self, x: Tensor) -> LinearObservationOperator:
        """The linear operator with the sigma levels of a state (C, H, W); equal to this at it."""
        lower, weight, factor = self._stencil(x)
        rows = torch.arange(len(self))
        share = torch.zeros(len(self), len(self.knots))
        share[rows, lower - 1] = ((1 - weight) * factor).float()
        share[rows, lower] = (weight * factor).float()
        index, weights = (
            value.unflatten(0, (len(self), -1))
            for value in (self.columns.index, self.columns.weights)
        )
        near = torch.stack([lower - 1, lower], -1)[..., None].expand(-1, -1, index.shape[-1])
        weights = (weights * share[..., None]).gather(1, near).flatten(1)
        return replace(
            self.place,
            index=index.gather(1, near).flatten(1),
            weights=weights,
            channel=self.channel,
        )


@dataclass(frozen=True)
class Mixed:
    """Several operators side by side, in the order of the table that they are for.

    Args:
        parts: operators.
        order: (N,) where each observation lies in their joint output.
    """

    parts: tuple[Any, ...]
    order: Tensor

    def __len__(self) -> int:
        return len(self.order)

    def __call__(self, x: Tensor) -> Tensor:
        """(..., C, H, W) -> (..., N); differentiable."""
        return torch.cat([part(x) for part in self.parts], -1)[..., self.order]

    def __getattr__(self, name: str) -> Tensor:
        if name not in ("latitude", "longitude", "channel"):
            raise AttributeError(name)
        return torch.cat([getattr(part, name) for part in self.parts])[self.order]

    def frozen(self, x: Tensor) -> LinearObservationOperator:
        """The linear operator around a state (C, H, W), equal to this at it."""
        return _joined([getattr(p, "frozen", lambda _, p=p: p)(x) for p in self.parts], self.order)


def _joined(parts: list[LinearObservationOperator], order: Tensor) -> LinearObservationOperator:
    """Linear operators as one; short stencils are filled with zero weights."""
    width = max(part.index.shape[1] for part in parts)

    def wide(value: Tensor) -> Tensor:
        return torch.nn.functional.pad(value, (0, width - value.shape[1]))

    joined = {
        n: torch.cat([wide(getattr(p, n)) for p in parts])[order] for n in ("index", "weights")
    }
    flat = ("latitude", "longitude", "channel")
    joined |= {n: torch.cat([getattr(p, n) for p in parts])[order] for n in flat}
    return LinearObservationOperator(shape=parts[0].shape, **joined)


def operators_for(
    observations: Observations, grid: Grid, channels: Channels, orography: Tensor
) -> Mixed:
    """The operator of a table on pressure levels, row for row, on states in SI units.

    Profiles go through ``OnPressure``, surface pressure of stations with a height through
    ``StationPressure``, all else by interpolation alone.

    Args:
        observations: with ``level`` in hPa, and ``height`` (m) of the stations.
        grid, channels: of the state, on sigma levels.
        orography: (H, W) of the model, metres.
    """
    table = observations.table
    height, variable = table["height"].to_numpy(), table["variable"].to_numpy()
    station = (variable == "surface_pressure") & np.isfinite(height)
    aloft = np.isfinite(table["level"].to_numpy()) & ~station
    parts, rows = [], []
    for kind, mask in (("aloft", aloft), ("station", station), ("rest", ~aloft & ~station)):
        at = np.flatnonzero(mask)
        if not len(at):
            continue
        place = (table["latitude"].to_numpy()[at], table["longitude"].to_numpy()[at])
        if kind == "aloft":
            level = table["level"].to_numpy()[at]
            part: Any = OnPressure.at(grid, channels, *place, variable[at], level)
        elif kind == "station":
            part = StationPressure.at(grid, channels, *place, height[at], orography)
        else:
            part = build_operator(grid, channels, *place, variable[at], np.full(len(at), np.nan))
        parts.append(part)
        rows.append(at)
    if not parts:
        raise GapzooError("no observation in the table; nothing to build an operator for")
    return Mixed(tuple(parts), torch.from_numpy(np.argsort(np.concatenate(rows))))
