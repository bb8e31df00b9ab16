"""Linear observation operators: gather and weights, with the adjoint.

With x (...,C,H,W) flattened to D = C*H*W values, observation n is

    y_n = sum_k weights[n,k] * x[index[n,k]],        K <= 8 points a place,

and the adjoint scatters the same weights back (``index_add``). On normalised states z, with
x = mean + std * z, the observation is H(x) = A(z) + offset, A = H std and offset = H(mean).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from torch import Tensor

from gapzoo.core import Channels, GapzooError, Grid
from gapzoo.data.observations.stencil import horizontal_stencil, vertical_stencil

if TYPE_CHECKING:
    from gapzoo.data.observations.form import Observations

VECTOR_COMPONENTS = frozenset(
    (
        "u_component_of_wind",
        "v_component_of_wind",
        "10m_u_component_of_wind",
        "10m_v_component_of_wind",
    )
)
"""Variables whose sign changes where a stencil reaches across a pole."""


@dataclass(frozen=True)
class LinearObservationOperator:
    """N weighted sums of a state (C,H,W).

    Args:
        index: (N,K) long, positions in the flattened state.
        weights: (N,K) float32.
        shape: (C,H,W) of a state.
        latitude, longitude: (N,) degrees, where the observations lie (for localisation).
        channel: (N,) long, the channel that weighs most (for localisation and errors).
    """

    index: Tensor
    weights: Tensor
    shape: tuple[int, int, int]
    latitude: Tensor
    longitude: Tensor
    channel: Tensor

    def __len__(self) -> int:
        return self.index.shape[0]

    def __call__(self, x: Tensor) -> Tensor:
        """(...,C,H,W) -> (...,N); differentiable."""
        self._check(x)
        values = x.flatten(-3).index_select(-1, self.index.flatten())
        return (values.unflatten(-1, self.index.shape) * self.weights).sum(-1)

    def adjoint(self, y: Tensor) -> Tensor:
        """(...,N) -> (...,C,H,W), the transpose of the operator."""
        if y.shape[-1] != len(self):
            raise GapzooError(f"{y.shape[-1]} values for {len(self)} observations; pass one each")
        spread = (y.unsqueeze(-1) * self.weights).flatten(-2)
        zeros = y.new_zeros(*y.shape[:-1], int(np.prod(self.shape)))
        return zeros.index_add(-1, self.index.flatten(), spread).unflatten(-1, self.shape)

    def scaled(self, mean: Tensor | float, std: Tensor | float) -> tuple[Self, Tensor]:
        """The operator on normalised states and its offset: H(mean + std z) = A(z) + offset.

        Args:
            mean, std: broadcast to (C,H,W), e.g. (C,1,1).

        Returns:
            A, and offset (N,): compare A(z) with y - offset.
        """
        mean, std = (self._field(value) for value in (mean, std))
        weights = self.weights * std.flatten()[self.index]
        return replace(self, weights=weights), self(mean)

    def rescaled(self, factor: Tensor) -> Self:
        """Each observation times ``factor`` (N,), e.g. 1/error to whiten."""
        return replace(self, weights=self.weights * factor.unsqueeze(-1).to(self.weights))

    def subset(self, rows: Tensor) -> LinearObservationOperator:
        """The observations at ``rows``: (n,) positions or an (N,) mask."""
        names = ("index", "weights", "latitude", "longitude", "channel")
        return _plain(self, {name: getattr(self, name)[rows] for name in names})

    def to(self, device: torch.device | str) -> Self:
        """The same operator on another device."""
        moved: dict[str, Any] = {
            name: value.to(device) for name, value in vars(self).items() if hasattr(value, "to")
        }
        return replace(self, **moved)

    def _field(self, value: Tensor | float) -> Tensor:
        field = torch.as_tensor(value, dtype=self.weights.dtype, device=self.weights.device)
        return field.broadcast_to(self.shape)

    def _check(self, x: Tensor) -> None:
        if tuple(x.shape[-3:]) != tuple(self.shape):
            raise GapzooError(
                f"state {tuple(x.shape[-3:])} but the operator was built for {self.shape}; "
                "build it from this state's grid and channels"
            )


def _plain(operator: LinearObservationOperator, parts: dict) -> LinearObservationOperator:
    return LinearObservationOperator(shape=operator.shape, **parts)


def build_operator(
    grid: Grid,
    channels: Channels,
    latitude: np.ndarray,
    longitude: np.ndarray,
    variable: np.ndarray,
    level: np.ndarray,
    beyond: str = "refuse",
) -> LinearObservationOperator:
    """The operator of N point observations.

    Args:
        grid, channels: of the state.
        latitude, longitude: (N,) degrees.
        variable: (N,) names in ``channels``.
        level: (N,) of the kind that ``channels`` has; NaN for a single-level variable.
        beyond: what to do above the top and below the bottom level, ``refuse`` or ``nearest``.

    Raises:
        GapzooError: for an unknown variable, a level outside, a level missing.
    """
    place, share, sign = horizontal_stencil(grid, latitude, longitude)
    layer, thickness = _layers(channels, np.asarray(variable), np.asarray(level, float), beyond)
    vector = np.isin(np.asarray(variable), list(VECTOR_COMPONENTS))[:, None]
    share = share * np.where(vector, sign, 1.0)
    index = layer[:, :, None] * (grid.shape[0] * grid.shape[1]) + place[:, None, :]
    weights = thickness[:, :, None] * share[:, None, :]
    index, weights = _compact(index.reshape(len(place), 8), weights.reshape(len(place), 8))
    heaviest = np.take_along_axis(layer, thickness.argmax(1)[:, None], 1)[:, 0]
    return LinearObservationOperator(
        index=torch.from_numpy(index),
        weights=torch.from_numpy(weights.astype(np.float32)),
        shape=(len(channels), *grid.shape),
        latitude=torch.as_tensor(np.asarray(latitude, np.float32)),
        longitude=torch.as_tensor(np.asarray(longitude, np.float32)),
        channel=torch.from_numpy(heaviest),
    )


def operator_for(
    observations: Observations, grid: Grid, channels: Channels, beyond: str = "refuse"
) -> LinearObservationOperator:
    """The operator of a table of observations, row for row."""
    if observations.level_kind != channels.level_kind and observations.has_levels:
        raise GapzooError(
            f"observations on {observations.level_kind} levels, channels on "
            f"{channels.level_kind} levels; convert with observations.on_sigma(surface_pressure)"
        )
    names = ("latitude", "longitude", "variable", "level")
    latitude, longitude, variable, level = (observations.table[n].to_numpy() for n in names)
    return build_operator(grid, channels, latitude, longitude, variable, level, beyond)


def _layers(
    channels: Channels, variable: np.ndarray, level: np.ndarray, beyond: str
) -> tuple[np.ndarray, np.ndarray]:
    """Two channels an observation (N,2) and their weights."""
    index = np.zeros((len(variable), 2), np.int64)
    weights = np.tile([1.0, 0.0], (len(variable), 1))
    for name in dict.fromkeys(variable.tolist()):
        rows, own = np.flatnonzero(variable == name), np.asarray(channels.of(name))
        levels = [channels[int(i)].level for i in own]
        if levels[0] is None:
            index[rows] = own[0]
            continue
        if np.isnan(level[rows]).any():
            raise GapzooError(f"an observation of '{name}' has no level; give each one")
        pair, weights[rows] = vertical_stencil(np.array(levels, float), level[rows], beyond)
        index[rows] = own[pair]
    return index, weights


def _compact(index: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Drop the stencil's places that no observation uses: points on the grid take one."""
    weights = np.where(np.abs(weights) < 1e-7, 0.0, weights)
    order = np.argsort(-np.abs(weights), axis=1, kind="stable")
    index, weights = (np.take_along_axis(a, order, 1) for a in (index, weights))
    used = max(1, int((weights != 0).any(0).sum()))
    return np.ascontiguousarray(index[:, :used]), np.ascontiguousarray(weights[:, :used])
