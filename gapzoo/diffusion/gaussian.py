"""The exact denoiser of a Gaussian prior; tests rest on it, and it is a baseline prior.

For x ~ N(mu, Sigma) and ``x_t = alpha x + sigma z``:

    E[x | x_t] = mu + alpha Sigma (alpha^2 Sigma + sigma^2 I)^-1 (x_t - alpha mu)
    Cov[x | x_t] = sigma^2 Sigma (alpha^2 Sigma + sigma^2 I)^-1
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gapzoo.diffusion.covariance import CovarianceOperator, DenseCovariance, as_covariance
from gapzoo.diffusion.denoiser import Denoiser, Posterior
from gapzoo.diffusion.reference import Reference
from gapzoo.diffusion.schedules import Schedule


class GaussianDenoiser(Denoiser):
    """Posterior mean and covariance in closed form; conditioning is ignored.

    Args:
        mean: (C,H,W), or what broadcasts to it.
        covariance: an operator; or a tensor: square (N,N) over the flattened state, or variances
            that broadcast to (C,H,W), or a number.
        schedule: the noise schedule.
    """

    mean: Tensor

    def __init__(
        self, mean: Tensor, covariance: float | Tensor | CovarianceOperator, schedule: Schedule
    ) -> None:
        super().__init__()
        self.register_buffer("mean", torch.as_tensor(mean), persistent=False)
        full = isinstance(covariance, Tensor) and covariance.shape == (mean.numel(),) * 2
        self.covariance = DenseCovariance(covariance) if full else as_covariance(covariance)  # type: ignore[arg-type]
        self.schedule = schedule

    def reference(self) -> Reference:
        """The prior itself."""
        return Reference(self.mean, self.covariance)

    def forward(self, x_t: Tensor, t: Tensor, **cond: Any) -> Posterior:
        """Exact posterior; x_t (B,C,H,W), t () or (B,)."""
        alpha, sigma = self.scales(x_t, t)
        mean = self.mean.to(x_t)

        def total(value: Tensor, a: Tensor, s: Tensor) -> Tensor:
            return (a**2 * value + s**2).clamp(min=torch.finfo(value.dtype).tiny)

        def update(value: Tensor, a: Tensor, s: Tensor) -> Tensor:
            return a * value / total(value, a, s)

        def spread(value: Tensor, a: Tensor, s: Tensor) -> Tensor:
            return s**2 * value / total(value, a, s)

        x_hat = mean + self.covariance.filter(x_t - alpha * mean, update, alpha, sigma)
        return Posterior(x_hat, lambda v: self.covariance.filter(v, spread, alpha, sigma))
