"""Heavy-tailed errors: Student's t by iteratively re-weighted least squares.

An error e of scale r and nu degrees of freedom is Gaussian with the variance r^2 / lambda where
lambda ~ Gamma(nu/2, nu/2) (Lange, Little & Taylor 1989). Given the misfit u = e / r,

    E[lambda | u] = (nu + 1) / (nu + u^2),

and with R = r^2 / lambda the score of the Gaussian likelihood is that of Student's t:
(nu + 1) e / (nu r^2 + e^2). The misfit is that of the posterior mean, which a solve gives as
e = R s (see ``base``); each call of the denoiser takes the weights that the last one left, so
that they settle while the noise falls. An observation far from what prior and others say thereby
loses its weight, where a Gaussian one would drag the analysis along.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gapzoo.core import GapzooError
from gapzoo.diffusion.covariance import DiagonalCovariance
from gapzoo.diffusion.guidance.constraint import GaussianConstraint, Stack


@dataclass(frozen=True)
class StudentConstraint(GaussianConstraint):
    """Observations with independent Student-t errors; ``variance`` is the squared scale.

    Args:
        degrees: nu; 4 is usual, and many are Gaussian.

    Raises:
        GapzooError: where the degrees are not positive or errors are correlated.
    """

    degrees: float = 4.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.degrees > 0:
            raise GapzooError(f"{self.degrees} degrees of freedom; give a positive number")
        if not isinstance(self.noise, DiagonalCovariance):
            raise GapzooError("heavy-tailed errors must be independent; give their variances")

    def weighted(self, weights: Tensor | None) -> GaussianConstraint:
        """The Gaussian constraint of given weights lambda (B, N), all 1 where None."""
        variance = self.noise.eigenvalues.to(self.y)
        if weights is not None:
            variance = variance.expand(self.y.shape[1:]) / weights.reshape(-1, *self.y.shape[1:])
        return GaussianConstraint(self.operator, self.y, variance)

    def weights(self, misfit: Tensor) -> Tensor:
        """lambda (B, N) of misfits (B, N) of the posterior mean, in the observations' units."""
        scale = self.noise.eigenvalues.to(misfit).expand(self.y.shape[1:]).flatten()
        return (self.degrees + 1) / (self.degrees + misfit.square() / scale)


class Reweighting:
    """The weights of a guided denoiser's heavy-tailed constraints, from call to call."""

    def __init__(self) -> None:
        self._level = torch.inf
        self._known: dict[int, Tensor] = {}

    def begin(
        self, constraints: list[GaussianConstraint], level: float, batch: int
    ) -> list[GaussianConstraint]:
        """All constraints as Gaussian ones; a run that begins anew starts from equal weights."""
        if level > self._level or any(len(w) != batch for w in self._known.values()):
            self._known = {}
        self._level = level
        return [
            c.weighted(self._known.get(n)) if isinstance(c, StudentConstraint) else c
            for n, c in enumerate(constraints)
        ]

    def update(self, constraints: list[GaussianConstraint], solved: Stack, s: Tensor) -> None:
        """New weights from the solution s (B, N): the misfit of the posterior mean is R s."""
        for n, constraint in enumerate(constraints):
            if isinstance(constraint, StudentConstraint):
                piece = s.split(solved.sizes, 1)[n]
                self._known[n] = constraint.weights(solved.parts[n].filter(piece, lambda r: r))
