"""Optimal interpolation: the best linear unbiased estimate with a climatological covariance.

From a sample of states X (S of them, mean m, e.g. of the training years),

    B = inflation * rho o cov(X),    K = B H^T (H B H^T + R)^-1,    x_a = m + K (y - H m),

with ``rho`` the product of a horizontal Gaspari-Cohn taper (plus a constant ``tail`` that never
falls to zero) and a taper between channels, ``o`` the element-wise product. Members are
random states of the sample, each drawn to its own perturbed observations,

    x_i = x_b,i + K (y + e_i - H x_b,i),        x_b,i from X,  e_i ~ N(0, R),

so truth and members have the same error distribution whatever K is: the spread is right by
construction as long as the truth comes from the climate of the sample (Burgers et al. 1998).
The network and its errors alone fix K: factorise once with ``gain`` and use it for all cases.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from gapzoo.baselines import BASELINES
from gapzoo.baselines.localisation import (
    SUPPORT,
    channel_taper,
    chord,
    gaspari_cohn,
    sphere_points,
)
from gapzoo.core import Channels, GapzooError, Grid, MemberGenerator

Operator = Callable[[Tensor], Tensor]
_TILE = 8
_CACHE_VALUES = 250_000_000


@BASELINES.register("optimal_interpolation")
class OptimalInterpolation:
    """The covariance: a sample of states and how it is localised.

    Args:
        sample: (S,C,H,W) states of the climate, in the units that the operator takes.
        length: horizontal localisation in metres; ``inf`` for none.
        tail: share (0 to 1) of the taper that is 1 at every distance.
        vertical: localisation in the logarithm of the level; ``inf`` for none.
        cross: factor between different variables, 0 to 1.
        inflation: factor on the covariance.

    Raises:
        GapzooError: for a sample of another shape than the grid and channels, or under 2 states.
    """

    def __init__(
        self,
        sample: Tensor,
        grid: Grid,
        channels: Channels,
        *,
        length: float = 2e6,
        tail: float = 0.0,
        vertical: float = math.inf,
        cross: float = 1.0,
        inflation: float = 1.0,
    ) -> None:
        expected = (len(channels), *grid.shape)
        if tuple(sample.shape[1:]) != expected or len(sample) < 2:
            raise GapzooError(f"sample {tuple(sample.shape)}; give at least 2 states {expected}")
        self.sample, self.mean = sample, sample.mean(0)
        self.grid, self.length, self.tail, self.inflation = grid, length, tail, inflation
        self.channel_taper = channel_taper(channels, vertical, cross).to(sample)
        lat, lon = torch.tensor(grid.latitude), torch.tensor(grid.longitude)
        self.points = sphere_points(*(a.flatten() for a in torch.meshgrid(lat, lon, indexing="ij")))

    def gain(self, operator: Operator, errors: Tensor) -> Gain:
        """Factorise for one network: ``operator`` with N observations, ``errors`` (N,)."""
        return Gain(self, operator, errors)

    def taper(self, a: Tensor, b: Tensor) -> Tensor:
        """(n,m) horizontal taper between unit vectors (n,3) and (m,3)."""
        near = gaspari_cohn(chord(a, b), self.length)
        return (self.tail + (1 - self.tail) * near).to(self.sample)

    def tiles(self) -> Iterator[Tensor]:
        """Grid points (flat, long) by compact blocks, so that far blocks can be left out."""
        height, width = self.grid.shape
        flat = torch.arange(height * width).unflatten(0, (height, width))
        for rows in flat.split(_TILE, dim=0):
            yield from (block.flatten() for block in rows.split(_TILE, dim=1))

    def reach(self, a: Tensor, b: Tensor) -> Tensor:
        """Which of ``b`` (m,3) have a covariance with any of ``a`` (n,3): positions, long."""
        if self.tail > 0 or math.isinf(self.length):
            return torch.arange(len(b))
        return torch.nonzero((chord(a, b) < SUPPORT * self.length).any(0)).squeeze(1)


class Gain:
    """K of one network, as the Cholesky factor of I + R^-1/2 H B H^T R^-1/2.

    Float64 to 4096 observations, float32 beyond; whitened, its least eigenvalue is 1.
    """

    def __init__(self, prior: OptimalInterpolation, operator: Operator, errors: Tensor) -> None:
        self.prior, self.operator, self.errors = prior, operator, errors.to(prior.sample)
        self.position = sphere_points(operator.latitude, operator.longitude)  # type: ignore[attr-defined]
        self.channel = operator.channel  # type: ignore[attr-defined]
        scale = math.sqrt(prior.inflation / (len(prior.sample) - 1))
        self._scale = scale
        self.seen = scale / self.errors * operator(prior.sample - prior.mean)  # (S,N)
        dtype = torch.float64 if len(self.errors) <= 4096 else torch.float32
        matrix = self._innovation_covariance(dtype)
        self.factor = torch.linalg.cholesky(matrix)
        self._blocks: list[tuple[Tensor, Tensor, Tensor]] | None = None

    def increment(self, innovation: Tensor) -> Tensor:
        """K d: (B,N) -> (B,C,H,W)."""
        whitened = (innovation / self.errors).to(self.factor)
        solved = torch.cholesky_solve(whitened.T, self.factor).to(self.prior.sample)
        out = solved.new_zeros(*self.prior.mean.flatten(1).shape, len(innovation))
        for tile, near, block in self._state_blocks():
            out[:, tile] = torch.einsum("ctn,nb->ctb", block, solved[near])
        return out.permute(2, 0, 1).unflatten(-1, self.prior.grid.shape)

    def analyse(self, y: Tensor) -> Tensor:
        """Analysis mean (B,C,H,W) from observations (B,N)."""
        return self.prior.mean + self.increment(y - self.operator(self.prior.mean))

    def members(self, y: Tensor, generator: MemberGenerator) -> Tensor:
        """Analysis ensemble (B,M,C,H,W) from observations (B,N), M = len(generator)."""
        count, cases = len(generator), len(y)
        pick = (generator.rand((count, cases)) * len(self.prior.sample)).long().T
        noise = generator.randn((count, *y.shape)).transpose(0, 1).to(y) * self.errors
        background = self.prior.sample[pick.to(self.prior.sample.device)]
        innovation = y.unsqueeze(1) + noise - self.operator(background)
        return background + self.increment(innovation.flatten(0, 1)).unflatten(0, (cases, count))

    def _innovation_covariance(self, dtype: torch.dtype) -> Tensor:
        """(N,N): I + R^-1/2 H B H^T R^-1/2, block by block of near observations."""
        prior = self.prior
        matrix = torch.eye(len(self.errors), dtype=dtype, device=self.errors.device)
        places, inverse = self.position.unique(dim=0, return_inverse=True)
        home = (places @ prior.points.T).argmax(1)
        for tile in prior.tiles():
            own = torch.nonzero(torch.isin(home, tile)[inverse]).squeeze(1)
            if len(own) == 0:
                continue
            near = prior.reach(self.position[own], self.position)
            block = self.seen[:, own].to(dtype).T @ self.seen[:, near].to(dtype)
            taper = prior.taper(self.position[own], places)[:, inverse[near]]
            between = prior.channel_taper[self.channel[own]][:, self.channel[near]]
            matrix[own[:, None], near] += block * taper * between
        return matrix

    def _state_blocks(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """B H^T R^-1/2 by tiles: grid points (T,), near observations (n,), block (C,T,n)."""
        if self._blocks is None:
            keep, total = [], 0
            for block in self._compute_blocks():
                total += block[2].numel()
                if total <= _CACHE_VALUES:
                    keep.append(block)
                yield block
            self._blocks = keep if total <= _CACHE_VALUES else None
        else:
            yield from self._blocks

    def _compute_blocks(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        prior = self.prior
        states = prior.sample.flatten(2)
        for tile in prior.tiles():
            near = prior.reach(prior.points[tile], self.position)
            anomaly = (states[:, :, tile] - prior.mean.flatten(1)[:, tile]).flatten(1)
            block = (self._scale * anomaly.T @ self.seen[:, near]).unflatten(0, (-1, len(tile)))
            block *= prior.taper(prior.points[tile], self.position[near])
            block *= prior.channel_taper[:, None, self.channel[near]]
            yield tile, near, block
