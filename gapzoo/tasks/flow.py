"""The flow-dependent part of a forecast's errors: the ensemble's own covariance, localised.

The forecast of the state is the ensemble mean m with the covariance Z Z^T + P, where Z holds the
members' anomalies over sqrt(M - 1), localised, and P is static (the forecaster's own error, and
what the ensemble misses). As a model with weights,

    x = m + Z w + e,      w ~ N(0, 1),      e ~ N(0, P),

so that p(x, w | y) = p(w | y) p(x | w, y) is drawn in two steps. For linear observations
y = H x + N(0, R) the first is an ensemble filter with the error R + H P H^T,

    y = H m + H Z w + N(0, R + H P H^T),

which LETKF solves, localised, with the diagonal of H P H^T; its members are m + Z w_i. The second
is the diffusion prior under y, with the error R, and under the forecast m + Z w_i with the error
P: the form ``gaussian``. Nothing counts twice, and with P = 0 the filter is all there is.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gapzoo.baselines.letkf import LETKF
from gapzoo.core import MemberGenerator
from gapzoo.diffusion.covariance import CovarianceOperator, DiagonalCovariance
from gapzoo.diffusion.guidance import GaussianConstraint

DRAWS = 64
"""States that the static deviation at each point is taken from, all longitudes together."""


def point_deviation(error: CovarianceOperator, shape: tuple[int, int, int]) -> Tensor:
    """(C, H, W) standard deviation of a covariance that is homogeneous along longitude."""
    total = torch.zeros(shape)
    noise = MemberGenerator(0, DRAWS)
    for part in noise.split(8):
        total += error.sample(part.randn((len(part), *shape))).square().sum(0)
    return (total.mean(-1, keepdim=True) / DRAWS).sqrt().expand(shape)


def flow_update(
    letkf: LETKF,
    members: Tensor,
    observations: Sequence[GaussianConstraint],
    deviation: Tensor,
    generator: MemberGenerator | None = None,
) -> Tensor:
    """m + Z w_i, drawn given the observations.

    Args:
        letkf: localisation and inflation; its rotation takes ``generator``.
        members: (M, C, H, W) normalised forecasts.
        observations: constraints whose operators know their places; taken in one after the other.
            Correlated errors, of variance 1, count as independent here.
        deviation: (C, H, W) of the static error.
        generator: a stream a member.
    """
    for constraint in observations:
        operator, mean = constraint.operator, members.mean(0, keepdim=True)
        static = (operator(mean + deviation) - operator(mean))[0]
        y, own = constraint.y.mean(0), torch.ones_like(constraint.y[0])
        if isinstance(constraint.noise, DiagonalCovariance):
            own = constraint.noise.eigenvalues.to(own).expand_as(own)
        streams = None if generator is None else generator.fork("flow")
        members = letkf.analyse(members, operator, y, (own + static**2).sqrt(), streams)
    return members
