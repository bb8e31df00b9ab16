"""The flow-dependent part of a forecast's errors: the ensemble's own covariance, localised.

The forecast of the state is the ensemble mean m with the covariance Z Z^T + P, where Z holds the
members' anomalies over sqrt(M - 1), localised, and P is static (the forecaster's own error, and
what the ensemble misses). As a model with weights,

    x = m + Z w + e,      w ~ N(0, 1),      e ~ N(0, P),

so that p(x, w | y) = p(w | y) p(x | w, y) is drawn in two steps. For linear observations
y = H x + N(0, R) the first is an ensemble filter with the error R + H P H^T,

    y = H m + H Z w + N(0, R + H P H^T),

which LETKF solves, localised, with those parts of H P H^T that belong to one place (the levels of
a column have the errors of P in common; places count as independent); its members are m + Z w_i.
The second is the diffusion prior under y, with the error R, and under the forecast m + Z w_i with
the error P: the form ``gaussian``. Nothing counts twice, and with P = 0 the filter is all there is.

A few members know the amplitude of the errors at each scale and latitude better than they know
where on the circle the errors are. So a ``share`` s of the ensemble's covariance B can be taken in
the modes of the climate, homogeneous along longitude and not localised:

    B  ~  (1 - s) Z Z^T + s B_modes,      P  ->  P + s B_modes,      Z  ->  sqrt(1 - s) Z.

``consistent`` scales the members' anomalies beforehand to what their own innovations ask for. Share
and static error are worth most while members know little more than the climate; ``unknown`` says
how little that is, so that both can fade as an ensemble settles.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from gapzoo.baselines.letkf import LETKF
from gapzoo.baselines.localisation import Sphere
from gapzoo.core import GapzooError, MemberGenerator
from gapzoo.core.places import Places
from gapzoo.core.world import World
from gapzoo.data.observations.operators import LinearObservationOperator
from gapzoo.diffusion.covariance import (
    CovarianceOperator,
    DiagonalCovariance,
    SpectralCovariance,
)
from gapzoo.diffusion.guidance import GaussianConstraint
from gapzoo.diffusion.zonal import ZonalCovariance

LOCAL = {"length": 1e6, "vertical": 0.5}
"""Localisation of the ensemble's part: metres, and the logarithm of the level."""
DRAWS = 64
"""States that the static deviation at each point is taken from, all longitudes together."""


def ensemble_filter(world: World, settings: Mapping[str, Any]) -> LETKF:
    """The filter of the ensemble's part.

    Args:
        world: of the states.
        settings: ``length`` (m), ``vertical`` (log level), else ``LOCAL``, and LETKF's own.

    Raises:
        GapzooError: for adaptive inflation.
    """
    given = {**LOCAL, **settings}
    if given.get("adaptive"):
        raise GapzooError("filter.adaptive has a memory that no restart keeps; leave it out")
    length, vertical = (float(given.pop(name)) for name in LOCAL)
    where = Sphere(world.grid, world.channels, length=length, vertical=vertical)
    return LETKF(where, **given)


def point_deviation(error: CovarianceOperator, shape: tuple[int, int, int]) -> Tensor:
    """(C, H, W) standard deviation of a covariance that is homogeneous along longitude.

    Exact in zonal modes, from ``DRAWS`` states otherwise.
    """
    return _deviation(error, _between(error), shape)


def _deviation(
    error: CovarianceOperator, between: Tensor | None, shape: tuple[int, int, int]
) -> Tensor:
    if between is not None:
        return _spread(between).T[..., None].expand(shape)
    total = torch.zeros(shape)
    noise = MemberGenerator(0, DRAWS)
    for part in noise.split(8):
        total += error.sample(part.randn((len(part), *shape))).square().sum(0)
    return (total.mean(-1, keepdim=True) / DRAWS).sqrt().expand(shape)


def _between(error: CovarianceOperator) -> Tensor | None:
    """(H,C,C) covariance between the channels at a point of each row, where it is known."""
    return error.between_channels(error.eigenvalues) if isinstance(error, ZonalCovariance) else None


def _spread(between: Tensor) -> Tensor:
    """(H,C) deviations."""
    return between.diagonal(dim1=1, dim2=2).sqrt()


def _places(operator: Any, own: Tensor, static: Tensor, between: Tensor | None) -> Places | None:
    """Observations by place with R + H P H^T in units of R; None where P's levels are not known.

    Args:
        operator: of linear observations.
        own: (N,) variances R.
        static: (N,) deviations of P at the observations.
        between: of P's channels at a point of each row.
    """
    if between is None or not isinstance(operator, LinearObservationOperator):
        return None
    spread = _spread(between)
    between = between / (spread[:, :, None] * spread[:, None])
    return Places.apart(operator).with_levels(operator, between, own, static)


def divided(
    members: Tensor, share: float, error: ZonalCovariance | SpectralCovariance
) -> tuple[Tensor, ZonalCovariance | SpectralCovariance]:
    """The members with (1 - share) of their variance, and the error with the rest of it.

    Args:
        members: (M, C, H, W) normalised forecasts.
        share: s, 0 to 1.
        error: P, whose basis takes the rest.
    """
    if share == 0:
        return members, error
    mean, count = members.mean(0, keepdim=True), len(members)
    own = error.of(members - mean).eigenvalues * (count / max(count - 1, 1))
    rest = mean + (1 - share) ** 0.5 * (members - mean)
    return rest, error.with_eigenvalues(error.eigenvalues + share * own)


def unknown(members: Tensor, area: Tensor, left: Sequence[int] = ()) -> float:
    """Part of the climate's variance that the members (M, C, H, W) have, at most 1.

    Args:
        members: normalised, so that the climate's variance is 1 in each channel.
        area: (H,) weights of the rows, mean 1.
        left: channels that do not count.
    """
    rows = [c for c in range(members.shape[1]) if c not in set(left)]
    variance = members[:, rows].var(0).mean((0, 2))
    return min(1.0, float((variance * area.to(variance)).mean()))


def consistent(
    members: Tensor, observations: Sequence[GaussianConstraint], deviation: Tensor, doubt: float
) -> Tensor:
    """The members, their covariance B times the factor a that the innovations d ask for.

    With errors scaled to 1 (observations and static ones together), S = H B H^T + 1 and

        a_o = (d^T d - N) / tr(S - 1),      var a_o = 2 tr(S^2) / tr(S - 1)^2,

    and a is the mean of a_o and 1, weighed by their variances (after Miyoshi 2011, eqs. 6-10, for
    the globe and without a memory: what it adds stays in the members).

    Args:
        members: (M, C, H, W) normalised forecasts.
        observations: as in ``flow_update``.
        deviation: (C, H, W) of the static error.
        doubt: standard deviation of a around 1, beforehand.
    """
    gram, misfit, number = torch.zeros(len(members), len(members)).double(), 0.0, 0
    for constraint in observations:
        y, own, static, seen = _seen(constraint, members, deviation)
        errors = (own + static**2).sqrt()
        anomalies = ((seen - seen.mean(0)) / errors).double() / (len(members) - 1) ** 0.5
        gram += anomalies @ anomalies.T
        misfit += float((((y - seen.mean(0)) / errors).double() ** 2).sum())
        number += len(y)
    spread = float(gram.trace())
    if spread <= 0:
        return members
    asked = (misfit - number) / spread
    unsure = 2 * (float(gram.square().sum()) + 2 * spread + number) / spread**2
    factor = (unsure + doubt**2 * asked) / (unsure + doubt**2)
    mean = members.mean(0, keepdim=True)
    return mean + min(max(factor, 0.5), 4.0) ** 0.5 * (members - mean)


def _seen(
    constraint: GaussianConstraint, members: Tensor, deviation: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Observed (N,), its error's variance (N,), the static deviation (N,), members' (M, N)."""
    operator, mean = constraint.operator, members.mean(0, keepdim=True)
    static = (operator(mean + deviation) - operator(mean))[0].flatten()
    y, own = constraint.y.mean(0).flatten(), torch.ones_like(static)
    if isinstance(constraint.noise, DiagonalCovariance):
        own = constraint.noise.eigenvalues.to(own).flatten().expand_as(own)
    return y, own, static, operator(members).flatten(1)


def flow_update(
    letkf: LETKF,
    members: Tensor,
    observations: Sequence[GaussianConstraint],
    error: CovarianceOperator,
    generator: MemberGenerator | None = None,
) -> Tensor:
    """m + Z w_i, drawn given the observations.

    Args:
        letkf: localisation and inflation; its rotation takes ``generator``.
        members: (M, C, H, W) normalised forecasts.
        observations: constraints whose operators know their places; taken in one after the other.
            Correlated errors, of variance 1, count as independent here.
        error: P, the static error.
        generator: a stream a member.
    """
    shape, between = tuple(members.shape[1:]), _between(error)
    deviation = _deviation(error, between, shape)  # type: ignore[arg-type]
    for constraint in observations:
        y, own, static, _ = _seen(constraint, members, deviation)
        streams = None if generator is None else generator.fork("flow")
        places = _places(constraint.operator, own, static, between)
        errors = (own + static**2).sqrt() if places is None else torch.ones_like(own)
        members = letkf.analyse(members, constraint.operator, y, errors, streams, places)
    return members
