"""Guidance with the climatology's posterior covariance: optimal interpolation around the denoiser.

    E[x | x_t, y] = x_hat + V H^T (R + H V H^T)^-1 (y - A(x_hat)),    V = r^2 L (L + r^2)^-1

with L the climatological covariance of the states: the covariance of the Wiener filter around which
the network is trained. The network gives x_hat; its Jacobian, which MMPS takes for V, is not asked,
so that no backward pass is needed and an error of the Jacobian does no harm. Exact for a Gaussian
prior of covariance L and linear operators; for others the network's own V knows more, if it is
trained well enough.

As in MMPS each solve starts from the last step's solution, the whitened misfit of the posterior
mean, so that the iterations of all steps add up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from gapzoo.core import GapzooError, MemberGenerator
from gapzoo.diffusion.covariance import CovarianceOperator
from gapzoo.diffusion.denoiser import Denoiser, error_std
from gapzoo.diffusion.guidance import GUIDANCE
from gapzoo.diffusion.guidance.base import Guidance, Problem
from gapzoo.diffusion.guidance.constraint import GaussianConstraint
from gapzoo.diffusion.guidance.precondition import Preconditioner
from gapzoo.diffusion.guidance.robust import StudentConstraint
from gapzoo.diffusion.modes import Blend
from gapzoo.diffusion.once import Once, evaluated, modal


class ClimatologicalProblem(Problem):
    """As ``Problem``, with V from a climatology L."""

    level: CovarianceOperator

    def covariance(self, v: Tensor) -> Tensor:
        """``V v``: (B,C,H,W) -> (B,C,H,W), a filter."""
        return self.level.filter(v, lambda b, r: r**2 * b / (b + r**2), self.ratio.flatten())


@GUIDANCE.register("wiener")
class Wiener(Guidance):
    """Guidance without a backward pass.

    Args:
        denoiser: the prior, or a guided denoiser.
        constraints: one or several; several are solved for at once.
        climatology: L; in the basis of the forecast's covariance where there is a forecast.
        iterations: most conjugate gradients a step; each costs a filter.
        tolerance: of the residual relative to the innovations, where a member stops earlier.
        warm: start from the solution of the step before, if that was at no lower noise level.

    Raises:
        GapzooError: without a climatology.
    """

    differentiates = False

    def __init__(
        self,
        denoiser: Denoiser,
        constraints: GaussianConstraint | Sequence[GaussianConstraint],
        climatology: CovarianceOperator | None = None,
        iterations: int = 150,
        tolerance: float = 0.05,
        warm: bool = True,
    ) -> None:
        super().__init__(denoiser, constraints)
        if climatology is None:
            raise GapzooError(
                "guidance 'wiener' needs the climatological covariance of the prior, in the basis "
                "of the forecast's errors; take a prior that has one, or guidance 'mmps'"
            )
        if iterations < 1:
            raise GapzooError(f"iterations is {iterations}; guidance takes at least 1")
        self.climatology, self.iterations, self.warm = climatology, iterations, warm
        self.tolerance = tolerance
        self.options = (id(climatology), iterations, tolerance, warm)
        self._last: tuple[float, Tensor] | None = None

    def problem(self, *arguments: Any) -> Problem:
        """See Guidance."""
        found = ClimatologicalProblem(*arguments)
        found.level = self.climatology
        return found

    def _solver(self, problem: Problem) -> Preconditioner:
        rule = {"iterations": self.iterations, "tolerance": self.tolerance}
        return Preconditioner(problem, problem.ratio, self.climatology, **rule)  # type: ignore[arg-type]

    def weights(self, problem: Problem, d: Tensor) -> Tensor:
        """``(R + H V H^T)^-1 d``."""
        return self._solver(problem)(d)

    def at_once(self) -> Callable[[Tensor | Blend, float], Once] | None:
        """See Denoiser: under a forecast alone, in the denoiser's own modes."""
        base, given = self.flattened()
        own = modal(base, given)
        if own is None or not own.same_basis(self.climatology):
            return None
        return partial(evaluated, base, own, given[0])

    def draw(self, x_t: Tensor, t: Tensor, generator: MemberGenerator, **cond: Any) -> Tensor:
        """A draw around the base's mean, moved by what it misses of perturbed constraints.

        With v ~ N(0, V) and e ~ N(0, R), x_hat + v + V H^T (R + H V H^T)^-1 (y + e - H (x_hat + v))
        has the posterior's mean and covariance (Doucet 2010; the perturbed observations of an
        EnKF), for linear H.

        Raises:
            GapzooError: for heavy-tailed errors.
        """
        if any(isinstance(c, StudentConstraint) for c in self.flattened()[1]):
            raise GapzooError("heavy-tailed errors have no Gaussian draw; take another sampler")
        with torch.no_grad():
            problem, x_hat = self.posed(x_t, t, **cond)
            noise = generator.randn(x_hat.shape).to(x_hat)
            apart = self.climatology.filter(noise, error_std, problem.ratio.flatten())
            errors = generator.randn(problem.innovation.shape).to(x_hat)
            d = problem.innovation + problem.filter(errors, torch.sqrt) - problem.forward(apart)
            return x_hat + apart + self._solver(problem).shift(d)

    def solve(self, problem: Problem) -> tuple[Tensor, Tensor]:
        """See Guidance; the weights of a forecast are not asked for and stand as 0."""
        last, level, d = self._last, float(problem.ratio.max()), problem.innovation
        solver = self._solver(problem)
        size = (len(d), sum(solver.observations.sizes))
        if self.warm and last is not None and level <= last[0] and last[1].shape == size:
            solver.start = last[1]
        shift = solver.shift(d)
        found = d.new_zeros(size) if solver.solution is None else solver.solution
        self._last = (level, found)
        return solver.padded(found), shift
