"""Guidance: what every method shares.

With the likelihood of a Gaussian constraint, the posterior mean given x_t and y is

    E[x | x_t, y] = x_hat + V H^T s,      V = Cov[x | x_t] = (sigma^2 / alpha) d x_hat / d x_t

(Tweedie's second-order formula), where methods differ in the weights s = S^-1 (y - A(x_hat)) alone:
in the covariance S that they take for y - A(x_hat). V acts through a vector-Jacobian product of the
network, whose forward graph is built once and reused; V is symmetric, so none other is needed.

Wrapping a guided denoiser multiplies likelihoods. Where method and options agree the constraints
are stacked and solved for at once. Where they don't, the outer method differentiates the inner
result with S and V held fixed: ``d(x_hat + V H^T s) = (1 - V H^T S^-1 H) d x_hat``, which is exact
for a Gaussian prior.

A forecast of the whole state is first absorbed into x_t as far as it can be exactly (see
``forecast``); x_t, r and V above are then those of the absorbed state.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from gapzoo.core import GapzooError
from gapzoo.diffusion.denoiser import Denoiser, Posterior
from gapzoo.diffusion.guidance.constraint import GaussianConstraint, Identity, Stack
from gapzoo.diffusion.guidance.forecast import absorb
from gapzoo.diffusion.guidance.robust import Reweighting, StudentConstraint
from gapzoo.diffusion.reference import Reference

SMALL = 0.1
"""Of the first noise level: standard deviations below it are lost in the noise."""


class Problem(Stack):
    """The linear problem of one denoiser call: stacked constraints, V and the noise level."""

    def __init__(
        self,
        constraints: Sequence[GaussianConstraint],
        x_hat: Tensor,
        x_t: Tensor,
        alpha: Tensor,
        sigma: Tensor,
    ) -> None:
        super().__init__([c.linearise(x_hat) for c in constraints])
        self.ratio = sigma / alpha
        self._x_hat, self._x_t, self._scale = x_hat, x_t, sigma**2 / alpha

    def covariance(self, v: Tensor) -> Tensor:
        """``V v``: (B,C,H,W) -> (B,C,H,W), one backward pass."""
        product = torch.autograd.grad(self._x_hat, self._x_t, v, retain_graph=True)[0]
        return self._scale * product

    def projected(self, s: Tensor) -> Tensor:
        """``(R + H V H^T) s``: (B,N) -> (B,N)."""
        noise = self.filter(s, lambda r: r)
        return noise + self.forward(self.covariance(self.adjoint(s)))


class Guidance(Denoiser):
    """A denoiser under constraints. A method overrides ``weights`` alone.

    Args:
        denoiser: the prior, or a guided denoiser.
        constraints: one or several.
    """

    options: tuple[Any, ...] = ()
    """What must agree for two guidances of one class to be merged."""
    differentiates = True
    """Whether V is the network's Jacobian."""

    def __init__(
        self,
        denoiser: Denoiser,
        constraints: GaussianConstraint | Sequence[GaussianConstraint],
    ) -> None:
        super().__init__()
        single = isinstance(constraints, GaussianConstraint)
        self.constraints: list[GaussianConstraint]
        self.constraints = [constraints] if single else list(constraints)  # type: ignore[list-item,arg-type]
        if not self.constraints:
            raise GapzooError("no constraint given; sample the prior itself without guidance")
        self.schedule, self.start = denoiser.schedule, denoiser.start
        self.denoiser, self._reweighting = denoiser, Reweighting()

    def reference(self) -> Reference | None:
        """The denoiser's, under a forecast of the whole state where there is one."""
        base, given = self.flattened()
        found = base.reference()
        if found is None:
            return None
        for constraint in given:
            if isinstance(constraint.operator, Identity):
                found = found.given(constraint.y, constraint.noise)
            else:
                found = replace(found, complete=False)
        return found

    def begin(self, noise: Tensor, t: Tensor) -> Tensor:
        """The marginal of the reference where that is complete; else noise, maybe around the mean.

        The mean is E[x | y], as the guided mean at no anomaly says: where the first noise level
        does not exceed the largest scales by far, these are no noise under observations. Of
        heavy-tailed errors the mean is not known before their weights are.
        """
        found, (alpha, sigma) = self.reference(), (s.to(noise) for s in self.schedule(t))
        if found is not None and found.complete:
            return found.begin(noise, alpha, sigma)
        heavy = any(isinstance(c, StudentConstraint) for c in self.flattened()[1])
        if found is None or heavy or not found.exceeds(SMALL * sigma / alpha):
            return sigma * noise
        return alpha * self(torch.zeros_like(noise), t.to(noise)).mean + sigma * noise

    def finish(self, x: Tensor) -> Tensor:
        """The denoiser's own."""
        return self.denoiser.finish(x)

    @abc.abstractmethod
    def weights(self, problem: Problem, d: Tensor) -> Tensor:
        """``S^-1 d``: weights s (B,N) of innovations d (B,N)."""

    def solve(self, problem: Problem) -> tuple[Tensor, Tensor]:
        """The weights s (B,N) of the innovations, and V H^T s (B,C,H,W)."""
        s = self.weights(problem, problem.innovation)
        return s, problem.covariance(problem.adjoint(s))

    def problem(self, *arguments: Any) -> Problem:
        """The linear problem of one call, of Problem's arguments."""
        return Problem(*arguments)

    def flattened(self) -> tuple[Denoiser, list[GaussianConstraint]]:
        """The innermost denoiser and the constraints of all like guidances around it."""
        inner = self.denoiser
        if type(inner) is type(self) and inner.options == self.options:
            base, constraints = inner.flattened()
            return base, constraints + self.constraints
        return inner, self.constraints

    def forward(self, x_t: Tensor, t: Tensor, **cond: Any) -> Posterior:
        """Guided posterior mean; x_t (B,C,H,W), t () or (B,)."""
        outer = torch.is_grad_enabled() and x_t.requires_grad
        with torch.set_grad_enabled(outer or self.differentiates):
            x_t = x_t if outer else x_t.detach().requires_grad_(self.differentiates)
            problem, x_hat = self.posed(x_t, t, **cond)
        with torch.no_grad():
            s, shift = self.solve(problem)
            self._reweighting.update(self.flattened()[1], problem, s)
        if not outer:
            return Posterior(x_hat.detach() + shift)
        return Posterior(_Shifted.apply(x_hat, shift, lambda w: self._pull(problem, w)))

    def posed(self, x_t: Tensor, t: Tensor, **cond: Any) -> tuple[Problem, Tensor]:
        """What is to be solved at x_t (B,C,H,W), forecasts absorbed; and the base's x_hat."""
        base, given = self.flattened()
        alpha, sigma = self.scales(x_t, t)
        level = float((sigma / alpha).max())
        constraints = self._reweighting.begin(given, level, len(x_t))
        constraints, x_t, t = absorb(constraints, self.schedule, x_t, t)
        x_hat = base(x_t, t, **cond).mean
        return self.problem(constraints, x_hat, x_t, *self.scales(x_t.detach(), t)), x_hat

    def _pull(self, problem: Problem, w: Tensor) -> Tensor:
        """Gradient with respect to x_hat: ``w - H^T S^-1 H V w``."""
        s = self.weights(problem, problem.forward(problem.covariance(w)))
        return w - problem.adjoint(s)


class _Shifted(torch.autograd.Function):
    """``x_hat + shift`` with a given gradient."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, x_hat: Tensor, shift: Tensor, pull: Callable[[Tensor], Tensor]
    ) -> Tensor:
        ctx.pull = pull
        return x_hat + shift

    @staticmethod
    def backward(ctx: Any, w: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        return ctx.pull(w), None, None
