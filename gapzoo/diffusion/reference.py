"""The Gaussian next to what is sampled: N(m, C), in whose modes a sampler may be exact.

Of a prior around its climatology it is N(0, L); of that prior under a Gaussian forecast
f ~ N(x, P) in the same modes it is their posterior,

    C = L P / (L + P),      m <- m + L / (L + P) (f - m).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import Tensor

from gapzoo.diffusion.covariance import CovarianceOperator


@dataclass(frozen=True)
class Reference:
    """N(m, C) of the clean state.

    Args:
        mean: m, (B or 1,C,H,W), or () for one number everywhere.
        covariance: C.
        complete: whether it knows of every constraint, so that its marginal under much noise is
            that of what is sampled.
    """

    mean: Tensor
    covariance: CovarianceOperator
    complete: bool = True

    def given(self, forecast: Tensor, noise: CovarianceOperator) -> Reference:
        """Under a forecast (B or 1,C,H,W) with errors P; incomplete where P has other modes."""
        if not self.covariance.same_basis(noise):
            return replace(self, complete=False)
        own, error = self.covariance.eigenvalues, noise.eigenvalues.to(self.covariance.eigenvalues)
        mean = self.mean.to(forecast)
        share = own / (own + error)
        moved = self.covariance.filter(forecast - mean, lambda b: share.to(b))
        left = self.covariance.with_eigenvalues(share * error)
        return replace(self, mean=mean + moved, covariance=left)

    def exceeds(self, level: Tensor) -> bool:
        """Whether any mode's standard deviation is above a level ()."""
        return bool(self.covariance.eigenvalues.max().sqrt().to(level) > level)

    def filter(self, v: Tensor, gain: Callable[..., Tensor], *scalars: Tensor) -> Tensor:
        """A function of C's eigenvalues and of scalars, on v (B,C,H,W)."""
        return self.covariance.filter(v, gain, *scalars)

    def begin(self, noise: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """A draw of alpha x + sigma z, its marginal, from standard noise (B,C,H,W)."""
        scaled = self.filter(noise, lambda b, a, s: (a**2 * b + s**2).sqrt(), alpha, sigma)
        return alpha.to(noise) * self.mean.to(noise) + scaled
