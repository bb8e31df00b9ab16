"""Diffusion posterior sampling (Chung et al. 2023, arXiv 2209.14687, algorithm 1).

    s = zeta d / |d|,   d = y - A(x_hat)

|d| is taken by member. The paper adds the gradient of |d| to x_s once a step, so that its strength
goes with the number of steps; here it is part of the denoiser, which any sampler can use. Neither
the errors' variance nor the prior's enters: zeta is tuned by hand, and the spread has no meaning.
Here for comparison.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from gapzoo.core import GapzooError
from gapzoo.diffusion.denoiser import Denoiser
from gapzoo.diffusion.guidance import GUIDANCE
from gapzoo.diffusion.guidance.base import Guidance, Problem
from gapzoo.diffusion.guidance.constraint import GaussianConstraint


@GUIDANCE.register("dps")
class DPS(Guidance):
    """Guidance of fixed length ``zeta`` along the misfit."""

    def __init__(
        self,
        denoiser: Denoiser,
        constraints: GaussianConstraint | Sequence[GaussianConstraint],
        zeta: float = 1.0,
    ) -> None:
        super().__init__(denoiser, constraints)
        if zeta <= 0:
            raise GapzooError(f"zeta is {zeta:g}; it must be positive")
        self.zeta = zeta
        self.options = (zeta,)

    def weights(self, problem: Problem, d: Tensor) -> Tensor:
        """``zeta d / |innovation|``."""
        length = problem.innovation.norm(dim=1, keepdim=True)
        return self.zeta * d / length.clamp(min=1e-12)
