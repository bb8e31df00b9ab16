"""Climatology: the analysis that ignores the observations; what any method must beat."""

from __future__ import annotations

from torch import Tensor

from gapzoo.baselines import BASELINES
from gapzoo.core import MemberGenerator


@BASELINES.register("climatology")
class Climatology:
    """Random states of a sample (S,C,H,W) of the climate."""

    def __init__(self, sample: Tensor) -> None:
        self.sample, self.mean = sample, sample.mean(0)

    def analyse(self, y: Tensor) -> Tensor:
        """The mean (B,C,H,W) for each case of y (B,N)."""
        return self.mean.expand(len(y), *self.mean.shape)

    def members(self, y: Tensor, generator: MemberGenerator) -> Tensor:
        """Ensemble (B,M,C,H,W), M = len(generator)."""
        pick = (generator.rand((len(generator), len(y))) * len(self.sample)).long().T
        return self.sample[pick.to(self.sample.device)]
