"""Observations of several times in one analysis.

The analysis is at t_a; observations y_k of a time t_k are compared with the state of their time.

Before t_a (at the window's end): the first guess at its appropriate time. With the member's own
forecast f on its way through the window,

    y_k - H_k(f(t_k)) = y'_k - H_k(f(t_a)),      y'_k = y_k + H_k(f(t_a)) - H_k(f(t_k)),

so the departure is that of its own time and its increment is made at t_a. Any forecaster will do.
It is exact where the observed quantity's error does not change over the window.

After t_a (at the window's start): H_k o M(t_a -> t_k) with a forecaster M that can be
differentiated is one more operator, and the posterior at t_a is the smoother's (strong-constraint
4D): exact where M is linear and perfect. What the analysis is carried to is the filter's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from gapzoo.core import GapzooError
from gapzoo.diffusion.covariance import DiagonalCovariance
from gapzoo.diffusion.guidance import GaussianConstraint
from gapzoo.forecasters.base import Forecaster


@dataclass(frozen=True)
class Timed:
    """Observations of one time.

    Args:
        time: of the observations.
        constraint: on normalised states valid then.
    """

    time: pd.Timestamp
    constraint: GaussianConstraint


def first_guess(
    seen: Sequence[Timed],
    time: pd.Timestamp,
    forecast: Tensor | None,
    passed: Mapping[pd.Timestamp, Tensor],
) -> list[GaussianConstraint]:
    """Constraints at ``time`` from observations up to then, each compared at its own time.

    Args:
        seen: observations; later ones are left to ``at_start``.
        time: t_a.
        forecast: (M, C, H, W) at t_a; without it the state is taken to stand still.
        passed: (M, C, H, W) by the times between; observations of others count as of t_a.
    """
    found = []
    for one in [one for one in seen if one.time <= time]:
        here = passed.get(one.time)
        if one.time == time or forecast is None or here is None:
            found.append(one.constraint)
            continue
        operator = one.constraint.operator
        shift = operator(forecast) - operator(here)
        found.append(replace(one.constraint, y=one.constraint.y + shift))
    return found


def at_start(
    seen: Sequence[Timed],
    time: pd.Timestamp,
    forecaster: Forecaster,
    forcing: np.ndarray | None = None,
) -> list[GaussianConstraint]:
    """One constraint on the state at ``time`` from all observations after it, or none."""
    later = sorted((one for one in seen if one.time > time), key=lambda one: one.time)
    if not later:
        return []
    operator = Ahead(forecaster, time, [(o.time, o.constraint.operator) for o in later], forcing)
    y = torch.cat([o.constraint.y.flatten(1) for o in later], 1)
    return [GaussianConstraint(operator, y, torch.cat([_variance(o.constraint) for o in later]))]


def _variance(constraint: GaussianConstraint) -> Tensor:
    if type(constraint) is not GaussianConstraint or not isinstance(
        constraint.noise, DiagonalCovariance
    ):
        raise GapzooError(
            "observations after the analysis need independent Gaussian errors; end the window at "
            "the analysis instead"
        )
    size = constraint.y.flatten(1).shape[1]
    return constraint.noise.eigenvalues.to(constraint.y).flatten().expand(size)


class Ahead:
    """Observations of later times as an operator on the state at ``start``: H_k(M(x)).

    Args:
        forecaster: differentiable.
        start: time of the state.
        operators: times, ascending, and operators on normalised states.
        forcing: (F, H, W) anomalies at the start; they persist.
    """

    def __init__(
        self,
        forecaster: Forecaster,
        start: pd.Timestamp,
        operators: Sequence[tuple[pd.Timestamp, object]],
        forcing: np.ndarray | None = None,
    ) -> None:
        self.forecaster, self.start, self.forcing = forecaster, start, forcing
        self.operators = list(operators)

    def __call__(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, N) of all times in turn.

        Raises:
            GapzooError: where the forecaster cannot be differentiated.
        """
        now, parts, asked = self.start, [], x.requires_grad
        with sdpa_kernel(SDPBackend.MATH):  # the others have no second derivative
            for time, operator in self.operators:
                if time > now:
                    hours = int((time - now) / pd.Timedelta(hours=1))
                    x, now = self.forecaster.step(x, now, hours, self.forcing), time
                parts.append(operator(x).flatten(1))  # type: ignore[operator]
        if asked and not x.requires_grad:
            raise GapzooError(
                f"forecaster {type(self.forecaster).__name__} cannot be differentiated; end the "
                "window at the analysis (window: end) or take a network"
            )
        return torch.cat(parts, 1)
