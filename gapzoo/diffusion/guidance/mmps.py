"""Moment-matching posterior sampling (Rozet et al. 2024, arXiv 2405.13712, algorithm 3).

    S = R + H V H^T,   V = (sigma^2 / alpha) d x_hat / d x_t

solved by a few Krylov iterations, one backward pass each. Exact for Gaussian priors and linear
operators, given enough iterations. GMRES is the default: the Jacobian of a trained network is only
about symmetric, which conjugate gradients don't forgive.

With a forecast of the whole state, or a ``climatology``, the solver is preconditioned (see
``precondition``), because the spectrum of a field spans orders of magnitude and three plain
iterations would resolve its largest scales alone.

The solution is ``s = R^-1 (y - H E[x | x_t, y])``, the whitened misfit of the posterior mean, which
changes little from one sampler step to the next. Each solve therefore starts from the last one's
solution, for the members whom that brings nearer, and the iterations of all steps add up.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gapzoo.core import GapzooError, nearest
from gapzoo.diffusion.covariance import CovarianceOperator
from gapzoo.diffusion.denoiser import Denoiser
from gapzoo.diffusion.guidance import GUIDANCE
from gapzoo.diffusion.guidance.base import Guidance, Problem
from gapzoo.diffusion.guidance.constraint import GaussianConstraint
from gapzoo.diffusion.guidance.precondition import Preconditioner
from gapzoo.diffusion.krylov import SOLVERS


@GUIDANCE.register("mmps")
class MMPS(Guidance):
    """Guidance with the network's own posterior covariance.

    Args:
        denoiser: the prior, or a guided denoiser.
        constraints: one or several; several are solved for at once.
        iterations: Krylov iterations.
        solver: ``gmres`` or ``cg``.
        climatology: covariance of the states, for the preconditioner alone; in the basis of the
            forecast's covariance where there is a forecast.
        inner: conjugate gradients in a use of the preconditioner; they cost no backward pass.
        warm: start from the solution of the step before, if that was at a higher noise level.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        constraints: GaussianConstraint | Sequence[GaussianConstraint],
        iterations: int = 3,
        solver: str = "gmres",
        climatology: CovarianceOperator | None = None,
        inner: int = 10,
        warm: bool = True,
    ) -> None:
        super().__init__(denoiser, constraints)
        if solver not in SOLVERS:
            raise GapzooError(f"no Krylov solver '{solver}'; {nearest(solver, SOLVERS)}")
        if iterations < 1:
            raise GapzooError(f"iterations is {iterations}; MMPS takes at least 1")
        self.iterations, self.solver, self.climatology = iterations, solver, climatology
        self.inner, self.warm = inner, warm
        self.options = (iterations, solver, id(climatology), inner, warm)
        self._last: tuple[float, Tensor] | None = None

    def weights(self, problem: Problem, d: Tensor) -> Tensor:
        """``(R + H V H^T)^-1 d`` by Krylov iterations."""
        precondition = None
        if self.climatology is not None or any(part.identity for part in problem.parts):
            precondition = Preconditioner(problem, problem.ratio, self.climatology, self.inner)
        level = float(problem.ratio.max())
        start, left = self._begin(problem, d, level)
        s = start + SOLVERS[self.solver](problem.projected, left, self.iterations, precondition)
        self._last = (level, s)
        return s

    def _begin(self, problem: Problem, d: Tensor, level: float) -> tuple[Tensor, Tensor]:
        """Where to start, and what is left to solve for; zero for members it takes further off."""
        last = self._last
        if not self.warm or last is None or last[0] <= level or last[1].shape != d.shape:
            return torch.zeros_like(d), d
        left = d - problem.projected(last[1])
        nearer = left.norm(dim=1, keepdim=True) < d.norm(dim=1, keepdim=True)
        return torch.where(nearer, last[1], 0.0), torch.where(nearer, left, d)
