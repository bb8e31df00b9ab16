"""Forecasts of the whole state, absorbed into the noisy state before the denoiser is asked.

A forecast ``f ~ N(x, P)`` and the noisy state ``x_t / alpha ~ N(x, r^2)`` are both Gaussian in x.
Split P's precision into an isotropic part and a rest,

    P^-1 = b I + Q^-1,      b = SHARE / (largest eigenvalue of P),   Q >= 0

and the isotropic part and the noisy state make one noisy state of less noise,

    c^2 = r^2 / (1 + b r^2),     m = (x_t / alpha + b r^2 f) / (1 + b r^2),     m ~ N(x, c^2)

at which the denoiser is exact, whatever the prior. Only the rest, f ~ N(x, Q), is left to guidance.
So the network is never asked about noise above the forecast's own largest error, where its Jacobian
is worth little; for white errors there is hardly a rest. SHARE is below 1 to keep Q finite.
"""

from __future__ import annotations

from torch import Tensor

from gapzoo.diffusion.guidance.constraint import GaussianConstraint, Identity
from gapzoo.diffusion.schedules import Schedule

SHARE = 0.99


def absorb(
    constraints: list[GaussianConstraint], schedule: Schedule, x_t: Tensor, t: Tensor
) -> tuple[list[GaussianConstraint], Tensor, Tensor]:
    """Absorb every whole-state constraint.

    Args:
        constraints: all of them; those whose operator is ``Identity`` are forecasts.
        schedule: the noise schedule.
        x_t: (B,C,H,W) noisy state.
        t: () or (B,) its time.

    Returns:
        The constraints with each P replaced by Q, a noisy state (B,C,H,W) of less noise, its time.
    """
    left = []
    for constraint in constraints:
        if isinstance(constraint.operator, Identity):
            constraint, x_t, t = _absorb(constraint, schedule, x_t, t)
        left.append(constraint)
    return left, x_t, t


def _absorb(
    forecast: GaussianConstraint, schedule: Schedule, x_t: Tensor, t: Tensor
) -> tuple[GaussianConstraint, Tensor, Tensor]:
    error = forecast.noise.eigenvalues
    b = SHARE / float(error.max())
    alpha, sigma = (s.reshape(-1, 1, 1, 1) for s in schedule(t.to(x_t)))
    weight = b * (sigma / alpha) ** 2
    m = (x_t / alpha + weight * forecast.y.to(x_t)) / (1 + weight)
    c = (sigma / alpha) / (1 + weight).sqrt()
    lower = schedule.t_of_sigma(c).reshape(t.shape)
    rest = forecast.noise.with_eigenvalues(error / (1 - b * error))
    alpha = schedule(lower)[0].reshape(-1, 1, 1, 1)
    return GaussianConstraint(forecast.operator, forecast.y, rest), alpha * m, lower
