"""Score-based data assimilation (Rozet & Louppe 2023, arXiv 2306.10574, section 3.2).

    S = R + gamma r^2 I,   r = sigma / alpha

The prior's covariance enters as the number gamma: small trusts the denoiser's mean. Cheap (one
backward pass) and stable for sparse observations; the spread of correlated fields comes out wrong.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from gapzoo.core import GapzooError
from gapzoo.diffusion.denoiser import Denoiser
from gapzoo.diffusion.guidance import GUIDANCE
from gapzoo.diffusion.guidance.base import Guidance, Problem
from gapzoo.diffusion.guidance.constraint import GaussianConstraint


@GUIDANCE.register("sda")
class SDA(Guidance):
    """Guidance with a scalar prior variance ``gamma r^2`` in observation space."""

    def __init__(
        self,
        denoiser: Denoiser,
        constraints: GaussianConstraint | Sequence[GaussianConstraint],
        gamma: float = 0.3,
    ) -> None:
        super().__init__(denoiser, constraints)
        if gamma < 0:
            raise GapzooError(f"gamma is {gamma:g}; it must not be negative")
        self.gamma = gamma
        self.options = (gamma,)

    def weights(self, problem: Problem, d: Tensor) -> Tensor:
        """``(R + gamma r^2)^-1 d``."""
        return problem.filter(d, lambda noise, r: 1 / (noise + self.gamma * r**2), problem.ratio)
