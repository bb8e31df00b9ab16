"""Constraints on the clean state: ``y = A(x) + e`` with Gaussian errors ``e ~ N(0, R)``.

A is any differentiable operator. Around a state x it is linearised to H = dA/dx, and both H v and
H^T s come from automatic differentiation: H^T s is a vector-Jacobian product, and H v is that of
the map s -> H^T s (which is linear), so that an operator needs no code but its own forward.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from gapzoo.core import GapzooError
from gapzoo.diffusion.covariance import CovarianceOperator, as_covariance
from gapzoo.diffusion.modes import Blend

Operator = Callable[[Tensor], Tensor]


class Identity:
    """The operator that observes the whole state; forecasts constrain through it."""

    def __call__(self, x: Tensor) -> Tensor:
        """x itself."""
        return x


@dataclass(frozen=True)
class GaussianConstraint:
    """Observations, or a forecast, with Gaussian errors.

    Args:
        operator: A, (B,C,H,W) -> (B, ...), differentiable.
        y: (B or 1, ...) what was observed.
        variance: error variance: a number, a tensor that broadcasts to y, or a
            CovarianceOperator that acts on (B, ...).

    Raises:
        GapzooError: where y is not finite or a variance is not positive.
    """

    operator: Operator
    y: Tensor
    variance: float | Tensor | CovarianceOperator

    def __post_init__(self) -> None:
        object.__setattr__(self, "variance", as_covariance(self.variance))
        if not torch.isfinite(self.y).all():
            raise GapzooError("an observation is not finite; leave missing ones out of y")
        self._require_errors()

    def _require_errors(self) -> None:
        if not (self.noise.eigenvalues > 0).all():
            raise GapzooError("an observation error variance is 0; give each its real error")

    @property
    def noise(self) -> CovarianceOperator:
        """R, as an operator."""
        return as_covariance(self.variance)

    def linearise(self, x: Tensor) -> Linearised:
        """The constraint around the state x (B,C,H,W)."""
        return Linearised(self, x)


class ModalConstraint(GaussianConstraint):
    """A forecast of the whole state that is a sum yet to be computed.

    Args:
        blend: the forecast; ``y`` is it on the grid, once that is asked for.
        variance: as of ``GaussianConstraint``.
    """

    blend: Blend

    def __init__(self, blend: Blend, variance: CovarianceOperator) -> None:
        object.__setattr__(self, "blend", blend)
        object.__setattr__(self, "operator", Identity())
        object.__setattr__(self, "variance", variance)
        self._require_errors()

    @cached_property
    def y(self) -> Tensor:  # type: ignore[override]
        """(B,C,H,W)."""
        return self.blend.grid()


class Linearised:
    """One constraint around a state; observations are flattened to (B,N)."""

    def __init__(self, constraint: GaussianConstraint, x: Tensor) -> None:
        self.noise, self.identity = constraint.noise, isinstance(constraint.operator, Identity)
        self.operator = constraint.operator
        self._state = x.detach()
        if not self.identity:
            self._trace(constraint.operator)
        self._like = self._state if self.identity else self._value.detach()
        y = constraint.y.to(self._like)
        if y.shape[1:] != self._like.shape[1:] or y.shape[0] not in (1, len(x)):
            got, made = tuple(y.shape), tuple(self._like.shape)
            raise GapzooError(f"observations {got} do not fit the operator's output {made}")
        self.innovation = (y - self._like).flatten(1)

    def _trace(self, operator: Operator) -> None:
        with torch.enable_grad():
            self._state = self._state.requires_grad_()
            self._value = operator(self._state)
            if not self._value.requires_grad:
                raise GapzooError("the observation operator is not differentiable; use torch ops")
            self._dual = torch.zeros_like(self._value, requires_grad=True)
            self._pulled = torch.autograd.grad(
                self._value, self._state, self._dual, create_graph=True
            )[0]

    def adjoint(self, s: Tensor) -> Tensor:
        """``H^T s``: (B,N) -> (B,C,H,W)."""
        s = s.reshape(self._like.shape)
        if self.identity:
            return s
        return torch.autograd.grad(self._value, self._state, s, retain_graph=True)[0]

    def forward(self, v: Tensor) -> Tensor:
        """``H v``: (B,C,H,W) -> (B,N)."""
        if not self.identity:
            v = torch.autograd.grad(self._pulled, self._dual, v, retain_graph=True)[0]
        return v.flatten(1)

    def filter(self, s: Tensor, gain: Callable[..., Tensor], *scalars: Tensor) -> Tensor:
        """A function of R, and of scalars by member, applied to s (B,N)."""
        return self.noise.filter(s.reshape(self._like.shape), gain, *scalars).flatten(1)


class Stack:
    """Several linearised constraints as one, with observations side by side: (B, N1 + N2 + ...)."""

    def __init__(self, parts: Sequence[Linearised]) -> None:
        self.parts = list(parts)
        self.sizes = [part.innovation.shape[1] for part in self.parts]

    @property
    def innovation(self) -> Tensor:
        """``y - A(x)``."""
        return torch.cat([part.innovation for part in self.parts], 1)

    def adjoint(self, s: Tensor) -> Tensor:
        """``H^T s``: (B,N) -> (B,C,H,W)."""
        pieces = zip(self.parts, s.split(self.sizes, 1), strict=True)
        return torch.stack([part.adjoint(piece) for part, piece in pieces]).sum(0)

    def forward(self, v: Tensor) -> Tensor:
        """``H v``: (B,C,H,W) -> (B,N)."""
        return torch.cat([part.forward(v) for part in self.parts], 1)

    def filter(self, s: Tensor, gain: Callable[..., Tensor], *scalars: Tensor) -> Tensor:
        """A function of the joint R, applied to s (B,N)."""
        pieces = zip(self.parts, s.split(self.sizes, 1), strict=True)
        return torch.cat([part.filter(piece, gain, *scalars) for part, piece in pieces], 1)
