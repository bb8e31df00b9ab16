"""Pseudoinverse-guided diffusion (Song et al. 2023, openreview 9_gsMA8MRKQ, equation 7).

    S = R + v H H^T,   v = sd^2 r^2 / (sd^2 + r^2)

v is the posterior variance of independent data of standard deviation sd. The system is solved by
conjugate gradients in observation space, without the network.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from gapzoo.core import GapzooError
from gapzoo.diffusion.denoiser import Denoiser
from gapzoo.diffusion.guidance import GUIDANCE
from gapzoo.diffusion.guidance.base import Guidance, Problem
from gapzoo.diffusion.guidance.constraint import GaussianConstraint
from gapzoo.diffusion.krylov import cg


@GUIDANCE.register("pigdm")
class PiGDM(Guidance):
    """Guidance with an isotropic prior covariance, mapped by the operator."""

    def __init__(
        self,
        denoiser: Denoiser,
        constraints: GaussianConstraint | Sequence[GaussianConstraint],
        sigma_data: float = 1.0,
        iterations: int = 20,
    ) -> None:
        super().__init__(denoiser, constraints)
        if sigma_data <= 0 or iterations < 1:
            raise GapzooError(f"sigma_data {sigma_data:g}, iterations {iterations}: not positive")
        self.sigma_data, self.iterations = sigma_data, iterations
        self.options = (sigma_data, iterations)

    def weights(self, problem: Problem, d: Tensor) -> Tensor:
        """``(R + v H H^T)^-1 d``."""
        v = self.sigma_data**2 * problem.ratio**2 / (self.sigma_data**2 + problem.ratio**2)

        def matrix(s: Tensor) -> Tensor:
            return problem.filter(s, lambda r: r) + problem.forward(v * problem.adjoint(s))

        return cg(matrix, d, self.iterations, lambda s: problem.filter(s, lambda r: 1 / r))
