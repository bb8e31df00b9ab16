"""Assimilation: the prior under observations, once or in a cycle.

In a cycle each member is carried to the next analysis by the forecaster; there its forecast
constrains the prior in one of these forms:

- ``renoise``: sampling starts from the member's own forecast, noised to ``start_sigma``;
- ``gaussian``: the member's own forecast with the forecaster's error covariance;
- ``mean``: the ensemble mean with that covariance plus the ensemble's, of the same cycle;
- ``none``: each analysis stands alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from gapzoo.core import GapzooError, MemberGenerator, nearest
from gapzoo.core.world import World
from gapzoo.data.observations.operators import LinearObservationOperator
from gapzoo.diffusion.covariance import SpectralCovariance
from gapzoo.diffusion.guidance import GaussianConstraint
from gapzoo.diffusion.prior import Prior, RenoisedForecast
from gapzoo.diffusion.zonal import ZonalCovariance
from gapzoo.forecasters.base import Forecaster
from gapzoo.tasks.forecast_error import likelihood
from gapzoo.tasks.sampling import Sampling

FORMS = ("none", "renoise", "gaussian", "mean")


def constraint(
    world: World,
    operator: LinearObservationOperator,
    y: Tensor,
    errors: Tensor,
    time: pd.Timestamp,
) -> GaussianConstraint:
    """Observations as a constraint on normalised states, each in units of its error.

    Args:
        world: of the states.
        operator: on states in SI units, N observations.
        y: (N,) observed values, SI units.
        errors: (N,) error standard deviations, SI units.
        time: valid time.
    """
    mean = world.mean(pd.DatetimeIndex([time]))[0]
    scaled, offset = operator.scaled(mean, world.std)
    whitened = scaled.rescaled(1 / errors)
    return GaussianConstraint(whitened, ((y - offset) / errors)[None], 1.0)


@dataclass(frozen=True, kw_only=True)
class Assimilation:
    """Draws analyses.

    Args:
        prior: the diffusion prior.
        world: of its states.
        sampling: how to draw.
        forecaster: carries members to the next analysis; needed in a cycle.
        form: of the forecast constraint, one of ``FORMS``.
        error: covariance of the forecaster's errors at the cycle's length, normalised.
        start_sigma: of ``renoise``.
    """

    prior: Prior
    world: World
    sampling: Sampling
    forecaster: Forecaster | None = None
    form: str = "gaussian"
    error: SpectralCovariance | ZonalCovariance | None = None
    start_sigma: float = 0.3

    def __post_init__(self) -> None:
        if self.form not in FORMS:
            raise GapzooError(f"forecast form '{self.form}'; {nearest(self.form, FORMS)}")
        if self.forecaster and self.form in ("gaussian", "mean") and self.error is None:
            raise GapzooError(f"form '{self.form}' needs the forecaster's error covariance")

    def analyse(
        self,
        time: pd.Timestamp,
        generator: MemberGenerator,
        observations: GaussianConstraint | list[GaussianConstraint] | None = None,
        forcing: np.ndarray | None = None,
        forecast: Tensor | None = None,
    ) -> Tensor:
        """Analysis ensemble (M, C, H, W), normalised.

        Args:
            time: of the analysis.
            generator: a stream a member.
            observations: constraints on normalised states.
            forcing: (F, H, W) forcing anomalies, SI units; None is the climatology.
            forecast: (M, C, H, W) normalised forecasts of the members, or None.
        """
        anomaly = None if forcing is None else forcing[None]
        cond = self.world.condition(pd.DatetimeIndex([time]), anomaly)
        return self.sampling.draw(
            self.prior,
            self.world.shape,
            generator,
            observations=observations,
            forcing=cond,
            forecast=self._forecast(forecast),
        )

    def _forecast(self, members: Tensor | None) -> Any:
        if members is None or self.form == "none":
            return None
        if self.form == "renoise":
            return lambda rows: RenoisedForecast(members[rows], self.start_sigma)
        assert self.error is not None
        own = getattr(self.prior.denoiser, "climatology", None)
        if self.form == "gaussian":
            return lambda rows: likelihood(members[rows], self.error, own)  # type: ignore[arg-type]
        mean = members.mean(0, keepdim=True)
        ensemble = self.error.of(members - mean).eigenvalues * len(members)
        total = self.error.eigenvalues + ensemble / max(len(members) - 1, 1)
        return likelihood(mean, self.error.with_eigenvalues(total), own)

    def cycle(
        self,
        steps: list[Step],
        generator: MemberGenerator,
        start: Tensor | None = None,
    ) -> Iterator[Cycle]:
        """Analyse, forecast, analyse, ...; yields every analysis as it is made.

        The random numbers of a cycle depend on its time alone, so a cycle restarted from any
        analysis goes on as it would have.

        Args:
            steps: times, observations and forcing, in order.
            generator: of the members.
            start: (M, C, H, W) analysis at the first step's time minus one cycle, to restart.
        """
        if self.forecaster is None:
            raise GapzooError("a cycle needs a forecaster; give one to Assimilation")
        members, last = start, None
        for step in steps:
            forecast = None
            if members is not None:
                before = last or step.before
                forecast = self._carry(members, before, step, generator)
            streams = generator.fork("analysis", step.time)
            members = self.analyse(step.time, streams, step.observations, step.forcing, forecast)
            last = step
            yield Cycle(step.time, members, forecast)

    def _carry(
        self, members: Tensor, before: Step | None, step: Step, generator: MemberGenerator
    ) -> Tensor:
        if before is None:
            raise GapzooError("a restart needs the first step's 'before': its time and forcing")
        hours = int((step.time - before.time) / pd.Timedelta(hours=1))
        assert self.forecaster is not None
        streams = generator.fork("forecast", step.time)
        return self.forecaster.step(members, before.time, hours, before.forcing, streams)


@dataclass(frozen=True)
class Step:
    """One analysis of a cycle.

    Args:
        time: valid time.
        observations: constraints on normalised states, or None.
        forcing: (F, H, W) forcing anomalies in SI units, or None.
        before: the step before the first one, when a cycle is restarted.
    """

    time: pd.Timestamp
    observations: GaussianConstraint | list[GaussianConstraint] | None = None
    forcing: np.ndarray | None = None
    before: Step | None = None


@dataclass(frozen=True)
class Cycle:
    """What a cycle gave: the analysis (M, C, H, W) and the forecast it started from, normalised."""

    time: pd.Timestamp
    analysis: Tensor
    forecast: Tensor | None
