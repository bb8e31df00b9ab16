"""Optimal interpolation: the best linear unbiased estimate with a climatological covariance.

From a sample of states (S of them, mean m, e.g. of the training years, or of their season),

    x_a = m + K (y - H m),

with the gain K of the localised sample covariance (``gain``). Members are random states of the
sample, each drawn to its own perturbed observations,

    x_i = x_b,i + K (y + e_i - H x_b,i),        x_b,i from the sample,  e_i ~ N(0, R),

so truth and members have the same error distribution whatever K is: the spread is right by
construction as long as the truth comes from the climate of the sample (Burgers et al. 1998).
"""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from gapzoo.baselines import BASELINES
from gapzoo.baselines.gain import Gain
from gapzoo.baselines.localisation import Sphere
from gapzoo.core import Channels, GapzooError, Grid, MemberGenerator


@BASELINES.register("optimal_interpolation")
class OptimalInterpolation:
    """The climate: a sample of states and how its covariance is localised.

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
        length: float = 4e6,
        tail: float = 0.0,
        vertical: float = math.inf,
        cross: float = 1.0,
        inflation: float = 1.0,
    ) -> None:
        expected = (len(channels), *grid.shape)
        if tuple(sample.shape[1:]) != expected or len(sample) < 2:
            raise GapzooError(f"sample {tuple(sample.shape)}; give at least 2 states {expected}")
        self.sample, self.mean, self.inflation = sample, sample.mean(0), inflation
        self.locality = Sphere(
            grid, channels, length=length, tail=tail, vertical=vertical, cross=cross
        )

    def network(self, operator: Any, errors: Tensor) -> NetworkInterpolation:
        """Factorise for one network: ``operator`` with N observations, ``errors`` (N,)."""
        gain = Gain(self.sample, operator, errors, self.locality, self.inflation)
        return NetworkInterpolation(gain)


class NetworkInterpolation:
    """Optimal interpolation of one network; use it for as many cases as share the network."""

    def __init__(self, gain: Gain) -> None:
        self.gain = gain

    def analyse(self, y: Tensor) -> Tensor:
        """Analysis mean (B,C,H,W) from observations (B,N)."""
        mean = self.gain.mean
        return mean + self.gain.increment(y - self.gain.operator(mean))

    def members(self, y: Tensor, generator: MemberGenerator) -> Tensor:
        """Analysis ensemble (B,M,C,H,W) from observations (B,N), M = len(generator)."""
        gain, count = self.gain, len(generator)
        pick = (generator.rand((count, len(y))) * len(gain.sample)).long().T
        noise = generator.randn((count, *y.shape)).transpose(0, 1).to(y) * gain.errors
        background = gain.sample[pick.to(gain.sample.device)]
        innovation = (y.unsqueeze(1) + noise - gain.operator(background)).flatten(0, 1)
        return background + gain.increment(innovation).unflatten(0, (len(y), count))
