"""Assimilation: the prior under observations, once or in a cycle.

In a cycle each member is carried to the next analysis by the forecaster; there its forecast
constrains the prior in one of these forms:

- ``renoise``: sampling starts from the member's own forecast, noised to ``start_sigma``;
- ``gaussian``: the member's own forecast with the forecaster's error covariance;
- ``mean``: the ensemble mean with that covariance plus the ensemble's, of the same cycle, in the
  basis of the former: its amplitudes by scale follow the flow, its places do not;
- ``hybrid``: the ensemble's own localised covariance and the static one together (``flow``);
- ``none``: each analysis stands alone.

Observations of several times enter at their own (``windows``).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from gapzoo.baselines.letkf import LETKF, relaxed, unmoved
from gapzoo.core import GapzooError, MemberGenerator, nearest
from gapzoo.core.world import World
from gapzoo.data.observations.operators import LinearObservationOperator
from gapzoo.diffusion.covariance import CovarianceOperator, SpectralCovariance
from gapzoo.diffusion.guidance import GaussianConstraint
from gapzoo.diffusion.guidance.robust import StudentConstraint
from gapzoo.diffusion.prior import Prior, RenoisedForecast
from gapzoo.diffusion.zonal import RegressedErrors, ZonalCovariance
from gapzoo.forecasters.base import Forecaster
from gapzoo.tasks.flow import consistent, divided, flow_update, point_deviation, unknown
from gapzoo.tasks.forecast_error import likelihood, mean_errors
from gapzoo.tasks.sampling import Sampling
from gapzoo.tasks.windows import Timed, at_start, first_guess

EXACT: dict[str, Any] = {"sampler": "decoupled", "steps": 1, "sampler_options": {}, "batch": 64}
"""Of what is Gaussian one step is a draw; no network, so members take little memory."""
FORMS = ("none", "renoise", "gaussian", "mean", "hybrid")
Observed = list[GaussianConstraint]
Error = SpectralCovariance | ZonalCovariance


def constraint(
    world: World,
    operator: LinearObservationOperator,
    y: Tensor,
    errors: Tensor,
    time: pd.Timestamp,
    correlation: CovarianceOperator | None = None,
    student: float | None = None,
) -> GaussianConstraint:
    """Observations as a constraint on normalised states, each in units of its error.

    Args:
        world: of the states.
        operator: on states in SI units, N observations.
        y: (N,) observed values, SI units.
        errors: (N,) error standard deviations, SI units.
        time: valid time.
        correlation: of the errors, on (B, N); none where None.
        student: degrees of freedom of heavy-tailed errors; Gaussian where None.
    """
    mean = world.mean(pd.DatetimeIndex([time]))[0]
    scaled, offset = operator.scaled(mean, world.std)
    whitened = scaled.rescaled(1 / errors)
    seen = ((y - offset) / errors)[None]
    if student is None:
        return GaussianConstraint(whitened, seen, 1.0 if correlation is None else correlation)
    if correlation is not None:
        raise GapzooError("errors are either correlated or heavy-tailed; give one of the two")
    return StudentConstraint(whitened, seen, 1.0, student)


@dataclass(frozen=True, kw_only=True)
class Assimilation:
    """Draws analyses.

    Args:
        prior: the diffusion prior.
        world: of its states.
        sampling: how to draw.
        forecaster: carries members to the next analysis; needed in a cycle.
        form: of the forecast constraint, one of ``FORMS``.
        error: covariance of the forecaster's errors at the cycle's length, normalised; with
            ``hybrid`` the static part of the forecast's.
        start_sigma: of ``renoise``.
        filter: of ``hybrid``: localisation, inflation and relaxation of the ensemble's part.
        share: of ``hybrid``: part of the ensemble's covariance that is taken by scale (``flow``).
        fading: power of the ensemble's variance over the climate's by which ``share`` and the
            static error of ``hybrid`` shrink as the ensemble settles; 0 leaves them as they are.
        doubt: standard deviation of the factor by which innovations may scale the members'
            covariance beforehand (``flow.consistent``); they may not where 0.
        rtps: relaxation of the analysis to the spread of the forecasts, 0 to 1 (the filter's own
            is of its part alone).
        learned: share of what the network knows beyond its Gaussian that is used where there are
            forecasts, 0 to 1. Forecasts by a good model hold what earlier analyses had of it, and
            asking for it each time counts it each time. At 0 all is Gaussian (but for
            heavy-tailed errors), and one exact draw takes the place of ``sampling``.
        kept: channels or variables that analyses leave as the forecasts have them: those that
            observations cannot know (``gapzoo.baselines.letkf.unmoved``).
        centred: of ``mean`` and ``hybrid``, whose members depend on each other anyway: their noise
            sums to zero (``CentredGenerator``), so that a cycle's mean does not gather it.
    """

    prior: Prior
    world: World
    sampling: Sampling
    forecaster: Forecaster | None = None
    form: str = "gaussian"
    error: Error | None = None
    start_sigma: float = 0.3
    filter: LETKF | None = None
    share: float = 0.0
    fading: float = 0.0
    doubt: float = 0.0
    rtps: float = 0.0
    learned: float = 1.0
    kept: str | Sequence[str] = ()
    centred: bool = True

    def __post_init__(self) -> None:
        if self.form not in FORMS:
            raise GapzooError(f"forecast form '{self.form}'; {nearest(self.form, FORMS)}")
        if self.forecaster and self.form in ("gaussian", "mean", "hybrid") and self.error is None:
            raise GapzooError(f"form '{self.form}' needs the forecaster's error covariance")
        if self.form == "hybrid" and self.filter is None:
            raise GapzooError("form 'hybrid' needs a filter: how the ensemble is localised")
        if not 0 <= self.share <= 1 or self.doubt < 0:
            raise GapzooError(f"share {self.share}, doubt {self.doubt}; 0 to 1, and 0 or more")
        if self.fading < 0:
            raise GapzooError(f"fading {self.fading}; give a power of 0 or more")
        if not 0 <= self.rtps <= 1:
            raise GapzooError(f"rtps {self.rtps}; give a part of the spread, 0 to 1")
        self.world.channels.positions(self.kept)  # refuses unknown names before anything is drawn

    def analyse(
        self,
        time: pd.Timestamp,
        generator: MemberGenerator,
        observations: GaussianConstraint | Observed | None = None,
        forcing: np.ndarray | None = None,
        forecast: Tensor | None = None,
    ) -> Tensor:
        """Analysis ensemble (M, C, H, W), normalised.

        Args:
            time: of the analysis.
            generator: a stream a member.
            observations: constraints on normalised states; their ``y`` may be one a member.
            forcing: (F, H, W) forcing anomalies, SI units; None is the climatology.
            forecast: (M, C, H, W) normalised forecasts of the members, or None.
        """
        anomaly = None if forcing is None else forcing[None]
        cond = self.world.condition(pd.DatetimeIndex([time]), anomaly)
        seen = [observations] if isinstance(observations, GaussianConstraint) else observations
        error, given = self.error, forecast
        if given is not None and seen and error is not None:
            given, error = self._flow(given, seen, error, generator)
        noise = generator
        if self._coupled(given):
            noise = generator.centred()
        sampling = self.sampling if given is None else self._beside_forecasts(seen or [])
        drawn = sampling.draw(
            self.prior,
            self.world.shape,
            noise,
            observations=lambda rows: [_of_members(c, rows) for c in seen or []],
            forcing=cond,
            forecast=self._forecast(given, error),
        )
        if forecast is None:
            return drawn
        rows = self.world.channels.positions(self.kept)
        return unmoved(forecast, relaxed(forecast, drawn, self.rtps), rows)

    def _beside_forecasts(self, seen: Observed) -> Sampling:
        """How analyses with forecasts are drawn."""
        gaussian = not self.learned and not any(isinstance(c, StudentConstraint) for c in seen)
        exact = EXACT if gaussian else {}
        return replace(self.sampling, learned=self.learned * self.sampling.learned, **exact)

    def _coupled(self, members: Tensor | None) -> bool:
        """Whether the members' noise is to sum to zero."""
        ensemble = self.form in ("mean", "hybrid") and members is not None and len(members) > 1
        return self.centred and ensemble

    def _flow(
        self, members: Tensor, seen: Observed, error: Error, generator: MemberGenerator
    ) -> tuple[Tensor, Error]:
        """The members, scaled and with ``hybrid`` drawn given the observations; their error."""
        if self.doubt:
            members = consistent(members, seen, self._deviation, self.doubt)
        if self.form != "hybrid":
            return members, error
        assert self.filter is not None
        left = self._left(members)
        error = error.with_eigenvalues(left * error.eigenvalues) if left < 1 else error
        members, error = divided(members, left * self.share, error)
        return flow_update(self.filter, members, seen, error, generator), error

    def _left(self, members: Tensor) -> float:
        """Of share and static error, as the ensemble settles."""
        if not self.fading:
            return 1.0
        area = torch.from_numpy(self.world.grid.area_weights)
        kept = self.world.channels.positions(self.kept)
        return unknown(members, area, kept) ** self.fading

    @cached_property
    def _deviation(self) -> Tensor:
        """(C, H, W) of the static error."""
        assert self.error is not None
        return point_deviation(self.error, self.world.shape)

    def _forecast(self, members: Tensor | None, error: Error | None) -> Any:
        if members is None or self.form == "none":
            return None
        if self.form == "renoise":
            return lambda rows: RenoisedForecast(members[rows], self.start_sigma)
        assert error is not None
        own = getattr(self.prior.denoiser, "climatology", None)
        error = _below(error, own) if self.form == "hybrid" else error
        if self.form in ("gaussian", "hybrid"):
            return lambda rows: likelihood(members[rows], error, own)
        mean = members.mean(0, keepdim=True)
        if isinstance(own, ZonalCovariance) and own.same_basis(error):
            return likelihood(mean, mean_errors(members, error, own), own)  # type: ignore[arg-type]
        return likelihood(mean, divided(members, 1.0, error)[1], own)

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
            forecast, passed = None, dict[pd.Timestamp, Tensor]()
            before = last or step.before
            if members is not None:
                if before is None:
                    raise GapzooError("a restart needs the first step's 'before'")
                stops = [one.time for one in step.seen]
                forecast, passed = self.carry(members, before, step.time, stops, generator)
            seen = first_guess(step.seen, step.time, forecast, passed)
            seen += at_start(step.seen, step.time, self.forecaster, step.forcing)
            streams = generator.fork("analysis", step.time)
            members = self.analyse(step.time, streams, seen, step.forcing, forecast)
            last = step
            yield Cycle(step.time, members, forecast)

    def carry(
        self,
        members: Tensor,
        before: Step,
        time: pd.Timestamp,
        stops: Iterable[pd.Timestamp],
        generator: MemberGenerator,
    ) -> tuple[Tensor, dict[pd.Timestamp, Tensor]]:
        """Forecasts (M, C, H, W) to the next analysis, and those passed at times on the way.

        Args:
            members: (M, C, H, W) analysis at ``before.time``.
            before: the step of that analysis.
            time: of the next one.
            stops: times wanted; those not between the two are left out.
            generator: for stochastic forecasters.
        """
        if self.forecaster is None:
            raise GapzooError("a cycle needs a forecaster; give one to Assimilation")
        passed: dict[pd.Timestamp, Tensor] = {}
        between = {t for t in stops if before.time < t < time}
        now = before.time
        for then in [*sorted(between), time]:
            hours = int((then - now) / pd.Timedelta(hours=1))
            streams = generator.fork("forecast", then)
            members = self.forecaster.step(members, now, hours, before.forcing, streams)
            passed[then], now = members, then
        return members, passed


MOST = 0.5
"""Share of the climate's variance that an ensemble's own error may have in a mode.

A forecast enters as f / rho^2 (``forecast_error``). Only a regressed one stays of the size of
x + N(0, P_l) where it knows little, as a mean is (``mean_errors``); a member would come in
amplified beyond anything that the network has seen.
"""


def _below(error: Error, climatology: Any) -> Error:
    """The error with at most ``MOST`` of the climate's variance in each mode, if not regressed."""
    regressed = isinstance(error, RegressedErrors)
    if regressed or not isinstance(climatology, ZonalCovariance):
        return error
    if not climatology.same_basis(error):
        return error
    most = MOST * climatology.eigenvalues
    return error.with_eigenvalues(torch.minimum(error.eigenvalues, most))


def _of_members(constraint: GaussianConstraint, rows: slice) -> GaussianConstraint:
    """The constraint of some members."""
    return constraint if len(constraint.y) == 1 else replace(constraint, y=constraint.y[rows])


@dataclass(frozen=True)
class Step:
    """One analysis of a cycle.

    Args:
        time: valid time.
        observations: constraints on normalised states at that time, or None.
        forcing: (F, H, W) forcing anomalies in SI units, or None.
        before: the step before the first one, when a cycle is restarted.
        window: observations of other times, before or after this one.
    """

    time: pd.Timestamp
    observations: GaussianConstraint | Observed | None = None
    forcing: np.ndarray | None = None
    before: Step | None = None
    window: tuple[Timed, ...] = ()

    @property
    def seen(self) -> list[Timed]:
        """All observations with their times."""
        own = self.observations
        here = [own] if isinstance(own, GaussianConstraint) else own or []
        return [*(Timed(self.time, c) for c in here), *self.window]


@dataclass(frozen=True)
class Cycle:
    """What a cycle gave: the analysis (M, C, H, W) and the forecast it started from, normalised."""

    time: pd.Timestamp
    analysis: Tensor
    forecast: Tensor | None
