"""The Kalman gain of a localised sample covariance, factorised once for a network.

With anomalies X (S,D) of the sample about its mean,

    B = inflation * rho o X^T X / (S - 1),
    K = B H^T R^-1/2 (I + R^-1/2 H B H^T R^-1/2)^-1 R^-1/2,

``o`` element-wise and ``rho`` a Locality. H B H^T is tapered between the observations' own
places, which is exact for observations at grid points. K depends on the network and its errors
alone: one Cholesky factor serves all cases.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from gapzoo.baselines.localisation import Everywhere, Locality
from gapzoo.core import GapzooError

_CACHE_VALUES = 250_000_000
_DOUBLE_BELOW = 4096


class Gain:
    """K of one network.

    Args:
        sample: (S,C,H,W) states, in the units that the operator takes.
        operator: linear, with N observations, their ``latitude``, ``longitude``, ``channel``.
        errors: (N,) standard deviations.
        locality: how covariances are localised; none if left out.
        inflation: factor on the covariance.

    The factor is float64 to 4096 observations and float32 beyond; whitened, the matrix's least
    eigenvalue is 1. B H^T is kept between calls up to a gigabyte, computed anew beyond.

    Raises:
        GapzooError: where errors are not positive, or not one an observation.
    """

    def __init__(
        self,
        sample: Tensor,
        operator: Any,
        errors: Tensor,
        locality: Locality | None = None,
        inflation: float = 1.0,
    ) -> None:
        if len(errors) != len(operator) or not (errors > 0).all():
            raise GapzooError(f"{len(operator)} observations need as many errors above zero")
        self.sample, self.mean, self.operator = sample, sample.mean(0), operator
        self.errors, self.locality = errors.to(sample), locality or Everywhere()
        self._scale = math.sqrt(inflation / (len(sample) - 1))
        self._seen = self._scale / self.errors * operator(sample - self.mean)  # (S,N)
        dtype = torch.float64 if len(errors) <= _DOUBLE_BELOW else torch.float32
        self.factor = torch.linalg.cholesky(self._innovation_covariance(dtype))
        self._blocks: list[tuple[Tensor, Tensor, Tensor]] | None = None

    def increment(self, innovation: Tensor) -> Tensor:
        """K d: (B,N) -> (B,C,H,W)."""
        whitened = (innovation / self.errors).to(self.factor)
        solved = torch.cholesky_solve(whitened.T, self.factor).to(self.sample)
        out = solved.new_zeros(*self.mean.flatten(1).shape, len(innovation))
        for tile, near, block in self._state_blocks():
            out[:, tile] = torch.einsum("ctn,nb->ctb", block, solved[near])
        return out.permute(2, 0, 1).unflatten(-1, self.mean.shape[1:])

    def _innovation_covariance(self, dtype: torch.dtype) -> Tensor:
        """(N,N): I + R^-1/2 H B H^T R^-1/2, by blocks of near observations."""
        matrix = torch.eye(len(self.errors), dtype=dtype, device=self.errors.device)
        for own, near, taper in self.locality.observation_tiles(self.operator):
            block = self._seen[:, own].to(dtype).T @ self._seen[:, near].to(dtype)
            channel = self.operator.channel
            block *= taper.to(block)
            if self.locality.channel_taper is not None:
                between = self.locality.channel_taper.to(block)
                block *= between[channel[own]][:, channel[near]]
            matrix[own.unsqueeze(-1), near] += block
        return matrix

    def _state_blocks(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """B H^T R^-1/2 by tiles: grid points (T,), near observations (n,), block (C,T,n)."""
        if self._blocks is not None:
            yield from self._blocks
            return
        keep, total = [], 0
        for block in self._compute_blocks():
            total += block[2].numel()
            if total <= _CACHE_VALUES:
                keep.append(block)
            yield block
        self._blocks = keep if total <= _CACHE_VALUES else None

    def _compute_blocks(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        states, mean = self.sample.flatten(2), self.mean.flatten(1)
        for tile, near, taper in self.locality.state_tiles(self.operator, mean.shape[1]):
            anomaly = (states[:, :, tile] - mean[:, tile]).flatten(1)
            block = (self._scale * anomaly.T @ self._seen[:, near]).unflatten(0, (-1, len(tile)))
            block *= taper.to(block)
            if self.locality.channel_taper is not None:
                between = self.locality.channel_taper.to(block)
                block *= between[:, self.operator.channel[near]].unsqueeze(1)
            yield tile, near, block
