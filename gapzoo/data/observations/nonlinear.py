"""Nonlinear observation operators: differentiable, on physical states (...,C,H,W) in SI units.

- wind speed: sqrt(u^2 + v^2) at a place and level;
- column integral of a variable q over pressure: 1/g * sum_k q_k dp_k. On sigma levels
  dp_k = ps dsigma_k with the layers whose mid-points are the levels (midways between levels where
  the levels are no mid-points); on pressure levels the layers end midways between levels;
- surface pressure at a station at height z, from the model's at its own height z_m, hydrostatic
  with the lapse rate 6.5 K/km and the lowest temperature T (Miyoshi's SPEEDY-LETKF):
  p = ps * (1 - L (z - z_m) / T)^(g / (R L)).

Each has ``latitude``, ``longitude`` and ``channel`` for localisation.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from gapzoo.core import Channels, GapzooError, Grid
from gapzoo.core.pressure import GAS_CONSTANT, GRAVITY, LAPSE
from gapzoo.data.observations.operators import LinearObservationOperator, build_operator


@dataclass(frozen=True)
class NonlinearOperator:
    """What nonlinear operators share: where they observe and how many there are."""

    place: LinearObservationOperator

    def __len__(self) -> int:
        return len(self.place)

    @property
    def latitude(self) -> Tensor:
        """(N,) degrees."""
        return self.place.latitude

    @property
    def longitude(self) -> Tensor:
        """(N,) degrees."""
        return self.place.longitude

    @property
    def channel(self) -> Tensor:
        """(N,) the channel that stands for the observation."""
        return self.place.channel

    def __call__(self, x: Tensor) -> Tensor:
        """(...,C,H,W) -> (...,N)."""
        raise NotImplementedError


@dataclass(frozen=True)
class WindSpeed(NonlinearOperator):
    """Speed of the horizontal wind; ``place`` observes u and ``northward`` v."""

    northward: LinearObservationOperator

    @classmethod
    def at(
        cls,
        grid: Grid,
        channels: Channels,
        latitude: np.ndarray,
        longitude: np.ndarray,
        level: np.ndarray,
        names: tuple[str, str] = ("u_component_of_wind", "v_component_of_wind"),
    ) -> WindSpeed:
        """At N places (degrees) and levels (NaN for single-level winds)."""
        parts = [
            build_operator(grid, channels, latitude, longitude, np.full(len(latitude), n), level)
            for n in names
        ]
        return cls(*parts)

    def __call__(self, x: Tensor) -> Tensor:
        """(...,C,H,W) -> (...,N) m/s; its gradient is finite at calm, too."""
        return (self.place(x).square() + self.northward(x).square() + 1e-12).sqrt()


@dataclass(frozen=True)
class ColumnIntegral(NonlinearOperator):
    """Mass-weighted integral over the column, kg m-2 for a mixing ratio.

    ``layers`` (L) operators observe the variable at each level; ``thickness`` (L,) is dsigma or
    dp (Pa); ``pressure`` observes the surface pressure, None on pressure levels.
    """

    layers: tuple[LinearObservationOperator, ...]
    thickness: tuple[float, ...]
    pressure: LinearObservationOperator | None

    @classmethod
    def at(
        cls,
        grid: Grid,
        channels: Channels,
        latitude: np.ndarray,
        longitude: np.ndarray,
        variable: str = "specific_humidity",
    ) -> ColumnIntegral:
        """At N places (degrees)."""
        levels = [channels[i].level for i in channels.of(variable)]
        if None in levels:
            raise GapzooError(f"'{variable}' has no levels to integrate over; name one that has")
        known = np.array(levels, float)
        layers = tuple(
            _point(grid, channels, latitude, longitude, variable, level) for level in known
        )
        lowest = layers[int(known.argmax())]
        if channels.level_kind == "pressure":
            return cls(lowest, layers, tuple(100.0 * midway_layers(known)), None)
        pressure = _point(grid, channels, latitude, longitude, "surface_pressure", np.nan)
        return cls(lowest, layers, tuple(sigma_layers(known)), pressure)

    def __call__(self, x: Tensor) -> Tensor:
        """(...,C,H,W) -> (...,N)."""
        parts = (t * layer(x) for t, layer in zip(self.thickness, self.layers, strict=True))
        total = torch.stack(list(parts)).sum(0) / GRAVITY
        return total if self.pressure is None else total * self.pressure(x)

    def frozen(self, x: Tensor) -> LinearObservationOperator:
        """The linear operator with the surface pressure of a state (C,H,W); equal to this at it.

        On pressure levels it is this one, with an adjoint.
        """
        parts = [
            layer.rescaled(torch.full((len(self),), t / GRAVITY))
            for t, layer in zip(self.thickness, self.layers, strict=True)
        ]
        width = max(part.index.shape[1] for part in parts)
        index, weights = (
            torch.cat([pad(getattr(p, name), (0, width - p.index.shape[1])) for p in parts], 1)
            for name in ("index", "weights")
        )
        whole = replace(self.place, index=index, weights=weights)
        return whole if self.pressure is None else whole.rescaled(self.pressure(x))


@dataclass(frozen=True)
class StationPressure(NonlinearOperator):
    """Pressure at stations ``above`` (N,) metres over the model's own surface."""

    temperature: LinearObservationOperator
    above: Tensor

    @classmethod
    def at(
        cls,
        grid: Grid,
        channels: Channels,
        latitude: np.ndarray,
        longitude: np.ndarray,
        height: np.ndarray,
        orography: Tensor,
    ) -> StationPressure:
        """At N stations of ``height`` (N,) metres; ``orography`` (H,W) of the model, metres."""
        pressure = _point(grid, channels, latitude, longitude, "surface_pressure", np.nan)
        lowest = max(channels[i].level or 0.0 for i in channels.of("temperature"))
        temperature = _point(grid, channels, latitude, longitude, "temperature", lowest)
        surface = Channels(["geopotential_at_surface"], channels.level_kind)
        ground = _point(grid, surface, latitude, longitude, "geopotential_at_surface", np.nan)
        above = torch.as_tensor(np.asarray(height, np.float32)) - ground(orography.unsqueeze(0))
        return cls(pressure, temperature, above)

    def __call__(self, x: Tensor) -> Tensor:
        """(...,C,H,W) -> (...,N) Pa."""
        return self.place(x) * self._ratio(x)

    def _ratio(self, x: Tensor) -> Tensor:
        """(...,N) pressure at the station over that at the model's surface."""
        ratio = 1 - LAPSE * self.above / self.temperature(x)
        return ratio ** (GRAVITY / (GAS_CONSTANT * LAPSE))

    def frozen(self, x: Tensor) -> LinearObservationOperator:
        """The linear operator with the temperature of a state (C,H,W); equal to this at it."""
        return self.place.rescaled(self._ratio(x))


def sigma_layers(levels: np.ndarray) -> np.ndarray:
    """(L,) thickness of the sigma layers, sum 1, whose mid-points are ``levels`` where possible."""
    order = np.argsort(levels)
    edges = [0.0]
    for level in levels[order]:
        edges.append(2 * float(level) - edges[-1])
    thickness = np.diff(edges)
    if np.any(thickness <= 0) or abs(edges[-1] - 1) > 0.02:
        middle = (levels[order][1:] + levels[order][:-1]) / 2
        thickness = np.diff(np.concatenate([[0.0], middle, [1.0]]))
    return (thickness / thickness.sum())[np.argsort(order)]


def midway_layers(levels: np.ndarray) -> np.ndarray:
    """(L,) thickness of layers that end midways between levels, the outermost at the levels."""
    order = np.argsort(levels)
    known = levels[order]
    edges = np.concatenate([known[:1], (known[1:] + known[:-1]) / 2, known[-1:]])
    return np.diff(edges)[np.argsort(order)]


def _point(
    grid: Grid,
    channels: Channels,
    latitude: np.ndarray,
    longitude: np.ndarray,
    variable: str,
    level: float,
) -> LinearObservationOperator:
    """One variable at one level, at N places."""
    names, levels = np.full(len(latitude), variable), np.full(len(latitude), level)
    return build_operator(grid, channels, latitude, longitude, names, levels)
