"""A climatological preconditioner, for forecasts and dense observations.

If the prior were N(., L) with L diagonal in a known basis, then at the noise-to-signal ratio r

    V = r^2 L (L + r^2)^-1

in that basis, and the stacked system of observations (O) and a forecast f ~ N(x, P) of the whole
state, P diagonal in the same basis,

    | R + H V H^T   H V   | |s_O|   |d_O|
    |   V H^T      V + P  | |s_F| = |d_F|

is solved without the network: s_F by filtering, and s_O by a few conjugate gradients from

    (R + H W H^T) s_O = d_O - H V (V + P)^-1 d_F,    W = (V^-1 + P^-1)^-1
    s_F = (V + P)^-1 (d_F - V H^T s_O)

This is optimal interpolation around x_hat. As a preconditioner it costs no backward pass, leaves
the solution as it is, and lets a Krylov solver with the network's own V need few iterations: one,
if the prior is as assumed. L is 1 (normalised states) where nobody says better.

The conjugate gradients are preconditioned themselves: by R + H W H^T within each place, where the
levels of a sounding have much in common and the modes say how much, else by R.
"""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from gapzoo.core import GapzooError
from gapzoo.core.places import Places
from gapzoo.diffusion.covariance import CovarianceOperator, DiagonalCovariance
from gapzoo.diffusion.guidance.constraint import Linearised, Stack
from gapzoo.diffusion.krylov import cg
from gapzoo.diffusion.zonal import ZonalCovariance


def _prior(level: Tensor, r: Tensor) -> Tensor:
    """V."""
    return r**2 * level / (level + r**2)


class Preconditioner:
    """Approximate inverse of ``R + H V H^T`` for stacked constraints.

    Args:
        stack: the linearised constraints; the first identity among them is the forecast.
        ratio: (B or 1,1,1,1) noise-to-signal ratio r.
        climatology: L, in the basis of the forecast's covariance; None is 1.
        iterations: conjugate gradients for the observations.
        tolerance: of the observations' residual relative to d, both over what preconditions them,
            where a member stops.
        start: (B,N_O) about the solution of the next call; ``solution`` is what that finds.

    Raises:
        GapzooError: where climatology and forecast covariance have different bases, or neither
            is given.
    """

    def __init__(
        self,
        stack: Stack,
        ratio: Tensor,
        climatology: CovarianceOperator | None = None,
        iterations: int = 10,
        start: Tensor | None = None,
        tolerance: float = 0.0,
    ) -> None:
        self.tolerance = tolerance
        self.ratio, self.iterations, self.sizes = ratio, iterations, stack.sizes
        self.start, self.solution = start, start
        where = [i for i, part in enumerate(stack.parts) if part.identity]
        self.at = where[0] if where else None
        self.forecast = None if self.at is None else stack.parts[self.at]
        self.observations = Stack([p for p in stack.parts if p is not self.forecast])
        self.basis, self.level, self.error = self._spectrum(climatology)

    def _spectrum(
        self, climatology: CovarianceOperator | None
    ) -> tuple[CovarianceOperator, Tensor, Tensor | None]:
        """The basis, L and P in it (P None without a forecast)."""
        if self.forecast is None:
            if climatology is None:
                raise GapzooError("without a forecast the preconditioner needs a climatology")
            return climatology, climatology.eigenvalues, None
        basis = self.forecast.noise
        if climatology is None:
            return basis, torch.ones(()), basis.eigenvalues
        if not basis.same_basis(climatology):
            raise GapzooError("climatology and forecast covariance differ in basis; use one kind")
        return basis, climatology.eigenvalues, basis.eigenvalues

    def _filter(self, v: Tensor, kind: str) -> Tensor:
        """V v: ``prior``; (V + P)^-1 v: ``inverse``; both: ``carried``; W v: ``joint``."""

        return self.basis.filter(v, lambda _, r: self._gain(r, kind), self.ratio)

    def _gain(self, r: Tensor, kind: str) -> Tensor:
        prior = _prior(self.level.to(r), r)
        if kind == "prior" or self.error is None:
            return prior
        error = self.error.to(r)
        whole = prior + error
        if kind == "inverse":
            return 1.0 / whole
        return (prior if kind == "carried" else prior * error) / whole

    @cached_property
    def _by_place(self) -> list[tuple[Places, Tensor] | None]:
        """Of each kind of observation its places and (S,k,k) inverses of R + H W H^T there."""
        if not isinstance(self.basis, ZonalCovariance):
            return [None] * len(self.observations.parts)
        joint = self._gain(self.ratio.max(), "joint")
        between = self.basis.between_channels(joint)
        return [_inverses(part, between) for part in self.observations.parts]

    def _scaled(self, s: Tensor) -> Tensor:
        """``s`` (B,N_O) over R + H W H^T within places."""
        obs, found = self.observations, []
        pieces = zip(obs.parts, self._by_place, s.split(obs.sizes, 1), strict=True)
        for part, known, piece in pieces:
            if known is None:
                found.append(part.filter(piece, lambda r: 1 / r))
                continue
            places, inverse = known
            found.append(places.back(torch.einsum("skl,bsl->bsk", inverse, places.of(piece))))
        return torch.cat(found, 1)

    def __call__(self, d: Tensor) -> Tensor:
        """About ``(R + H V H^T)^-1 d``: (B,N) -> (B,N)."""
        if self.forecast is None or self.at is None:
            return self._observed(d)
        pieces = list(d.split(self.sizes, 1))
        d_f = self._state(self.forecast, pieces.pop(self.at))
        if not pieces:
            return self._filter(d_f, "inverse").flatten(1)
        carried = self._filter(d_f, "carried")
        s = self._observed(torch.cat(pieces, 1) - self.observations.forward(carried))
        back = self._filter(self.observations.adjoint(s), "prior")
        solved = list(s.split(self.observations.sizes, 1))
        solved.insert(self.at, self._filter(d_f - back, "inverse").flatten(1))
        return torch.cat(solved, 1)

    def shift(self, d: Tensor) -> Tensor:
        """About ``V H^T (R + H V H^T)^-1 d``: (B,N) -> (B,C,H,W), by gains of at most 1.

        With a forecast it is V (V + P)^-1 d_F + W H^T s_O. (V + P)^-1 alone may be of any size: it
        would raise what rounding leaves of the largest modes in the smallest ones.
        """
        if self.forecast is None or self.at is None:
            return self._filter(self.observations.adjoint(self._observed(d)), "prior")
        pieces = list(d.split(self.sizes, 1))
        moved = self._filter(self._state(self.forecast, pieces.pop(self.at)), "carried")
        if not pieces:
            return moved
        s = self._observed(torch.cat(pieces, 1) - self.observations.forward(moved))
        return moved + self._filter(self.observations.adjoint(s), "joint")

    def padded(self, s: Tensor) -> Tensor:
        """Weights of the observations (B,N_O) among all of them (B,N), the forecast's 0."""
        pieces = list(s.split(self.observations.sizes, 1)) if self.observations.sizes else []
        if self.at is not None:
            pieces.insert(self.at, s.new_zeros(len(s), self.sizes[self.at]))
        return torch.cat(pieces, 1)

    def _observed(self, d: Tensor) -> Tensor:
        """``(R + H W H^T)^-1 d`` by conjugate gradients."""
        obs = self.observations

        def matrix(s: Tensor) -> Tensor:
            spread = obs.forward(self._filter(obs.adjoint(s), "joint"))
            return obs.filter(s, lambda r: r) + spread

        left, start = d, self.start
        if start is not None:
            left = d - matrix(start)
            nearer = left.norm(dim=1, keepdim=True) < d.norm(dim=1, keepdim=True)
            start, left = torch.where(nearer, start, 0.0), torch.where(nearer, left, d)

        enough = self.tolerance**2 * (d * self._scaled(d)).sum(1, keepdim=True)
        found = cg(matrix, left, self.iterations, self._scaled, enough)
        self.solution = found if start is None else start + found
        return self.solution

    @staticmethod
    def _state(part: Linearised, flat: Tensor) -> Tensor:
        """(B,N) -> (B,C,H,W)."""
        return part.adjoint(flat)


PARTS = ("index", "weights", "channel", "latitude", "longitude")
"""What an operator of linear observations tells of itself."""


def _inverses(part: Linearised, between: Tensor) -> tuple[Places, Tensor] | None:
    """Places of linear observations and their (S,k,k) inverses; None of others."""
    operator, noise = part.operator, part.noise
    if not isinstance(noise, DiagonalCovariance) or any(not hasattr(operator, n) for n in PARTS):
        return None
    size = operator.weights.sum(1).to(between)  # type: ignore[attr-defined]
    own = noise.eigenvalues.to(size).flatten().expand_as(size)
    places = Places.apart(operator).with_levels(operator, between, own, size)
    return places, places.precision()
