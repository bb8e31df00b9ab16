"""Errors of successive steps go together, and so does what is drawn for them.

Of a mode of unit variance let a step leave the share u unknown, x_{n+1} = g f(x_n) + r_{n+1}, and
the errors of successive steps have the correlation rho: what surprised the forecaster goes on
surprising it for a while. Drawn anew each step, errors that are right on the first day add up to
too little spread on the fifth. Here the noise of a step is drawn as

    a z_n + b z_{n-1},      a^2 + b^2 = 1,      a b = rho

from the noises z that each step's own seed gives, so that a run taken up again has the same. What
goes on adds variance, cov(x_n, r_{n+1}) = rho u; from the second step on the gain is k g, with

    k^2 + 2 k rho u / (1 - u)^1/2 = 1

so that the variance of the mode stays what it is. A forecaster that draws, by a few numbers that no
mode has for its own, draws them so too, with the modes' mean rho, each counting as much as it errs.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from gapzoo.diffusion.covariance import CovarianceOperator
from gapzoo.diffusion.modes import Blend
from gapzoo.diffusion.zonal import RegressedErrors, ZonalCovariance
from gapzoo.tasks.forecast_error import shared

MOST = 0.49
"""Largest correlation; two noises can have 1/2."""


def recurrence(first: Tensor, second: Tensor, climatology: ZonalCovariance) -> Tensor:
    """Correlations of errors of successive steps, mode by mode, the tails' last.

    Args:
        first, second: (N,C,H,W) errors of regressed forecasts, of a step and of the next.
        climatology: whose modes; those of like variance share what is found.

    Returns:
        (len(eigenvalues),) from 0 to ``MOST``.
    """
    level, ranks = climatology.eigenvalues, climatology.ranks
    both = shared(climatology.products(first, second) / level, ranks)
    own = climatology.products(first, first) + climatology.products(second, second)
    return (2 * both / shared(own / level, ranks).clamp(min=1e-12)).clamp(0.0, MOST)


@dataclass(frozen=True)
class Recurrence:
    """How the noises of steps go together.

    Args:
        modes: in which they are mixed.
        now, before: a and b of each (len(eigenvalues),).
        whole: a and b of what belongs to no mode.
    """

    modes: ZonalCovariance
    now: Tensor
    before: Tensor
    whole: tuple[float, float]

    def mix_whole(self, now: Tensor, before: Tensor) -> Tensor:
        """The same of numbers that belong to no mode, of any shape."""
        return self.whole[0] * now + self.whole[1] * before

    def mix(self, now: Tensor, before: Tensor) -> Blend:
        """The noise of a step from its own and that of the step before, (B,C,H,W) each."""
        return Blend(self.modes, ((now, self.now.to(now)), (before, self.before.to(now))))


def recurring(error: CovarianceOperator | None) -> Recurrence | None:
    """By what is known of a forecaster's errors; None where nothing recurs."""
    rho = error.recurrence if isinstance(error, RegressedErrors) else None
    if rho is None:
        return None
    assert isinstance(error, RegressedErrors)
    often = error.often.to(rho)
    weight = error.eigenvalues[: len(often)] * often
    mean = (rho[: len(often)] * weight).sum() / weight.sum().clamp(min=1e-12)
    (now, before), whole = _parts(rho), _parts(mean)
    return Recurrence(error, now, before, (float(whole[0]), float(whole[1])))


def _parts(rho: Tensor) -> tuple[Tensor, Tensor]:
    """a and b."""
    before = ((1 - (1 - 4 * rho**2).clamp(min=0).sqrt()) / 2).sqrt()
    return (1 - before**2).sqrt(), before
