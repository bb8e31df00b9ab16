"""One roll-out for every time scale: forecast, constrain, sample, yield.

Each member is carried one step by the deterministic forecaster; the prior under that forecast,

    x_{n+1} ~ p(x | forcing) N(f(x_n); x, P),

returns it to the states that the atmosphere takes, with the uncertainty P of one step. Without a
prior the roll-out is the forecaster's alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from gapzoo.core import GapzooError, MemberGenerator
from gapzoo.core.world import World
from gapzoo.diffusion.covariance import CovarianceOperator
from gapzoo.diffusion.prior import GaussianForecast, Prior, RenoisedForecast
from gapzoo.forecasters.base import Forecaster
from gapzoo.tasks.forecast_error import likelihood
from gapzoo.tasks.sampling import Sampling

Forcing = Callable[[pd.DatetimeIndex], np.ndarray]
"""Times (T,) to forcing anomalies (T, F, H, W) in SI units."""


@dataclass(frozen=True, kw_only=True)
class Rollout:
    """Carries an ensemble forward.

    Args:
        forecaster: one step of every member.
        world: of the states.
        hours: length of a step.
        prior: None leaves the forecaster's output as it is.
        sampling: how to draw from the constrained prior.
        error: covariance of the forecaster's errors over ``hours``; with it the constraint is
            Gaussian, without it partial re-noising at ``start_sigma``.
        start_sigma: noise level of partial re-noising.
        limit: a normalised value beyond this is unphysical and ends the roll-out.
    """

    forecaster: Forecaster
    world: World
    hours: int = 24
    prior: Prior | None = None
    sampling: Sampling | None = None
    error: CovarianceOperator | None = None
    start_sigma: float = 0.3
    limit: float = 50.0

    def run(
        self,
        state: Tensor,
        time: pd.Timestamp,
        generator: MemberGenerator,
        forcing: Forcing | None = None,
    ) -> Iterator[tuple[pd.Timestamp, Tensor]]:
        """Yield (valid time, (M, C, H, W) normalised), without end; the first is one step ahead.

        Random numbers depend on the valid time alone, so a roll-out restarted from any state that
        it yielded goes on as it would have.

        Raises:
            GapzooError: at the first state that is not finite or unphysical.
        """
        while True:
            anomaly = None if forcing is None else forcing(pd.DatetimeIndex([time]))[0]
            later = time + pd.Timedelta(hours=self.hours)
            streams = generator.fork("forecast", later)
            forecast = self.forecaster.step(state, time, self.hours, anomaly, streams)
            state = self._constrain(forecast, later, generator.fork("rollout", later), forcing)
            self._check(state, later)
            time = later
            yield time, state

    def _constrain(
        self,
        forecast: Tensor,
        time: pd.Timestamp,
        generator: MemberGenerator,
        forcing: Forcing | None,
    ) -> Tensor:
        if self.prior is None:
            return forecast
        times = pd.DatetimeIndex([time])
        cond = self.world.condition(times, None if forcing is None else forcing(times))
        given: dict[str, Any] = {"forcing": cond}
        given["forecast"] = lambda rows: self._given(forecast[rows])
        sampling = self.sampling or Sampling()
        return sampling.draw(self.prior, self.world.shape, generator, **given)

    def _given(self, forecast: Tensor) -> GaussianForecast | RenoisedForecast:
        if self.error is None:
            return RenoisedForecast(forecast, self.start_sigma)
        own = getattr(self.prior.denoiser if self.prior else None, "climatology", None)
        return likelihood(forecast, self.error, own)

    def _check(self, state: Tensor, time: pd.Timestamp) -> None:
        worst = torch.nan_to_num(state.abs(), nan=torch.inf).flatten(2).amax(2)
        if worst.max() > self.limit:
            member, channel = divmod(int(worst.argmax()), state.shape[1])
            raise GapzooError(
                f"at {time:%Y-%m-%d %H:%M} member {member} left the climate: "
                f"{self.world.channels[channel].label} is {worst.max():.0f} spreads off; "
                "constrain the roll-out with a prior, or shorten its step"
            )


def persisted(anomaly: np.ndarray) -> Forcing:
    """Forcing whose anomalies (F, H, W) stay as they are."""
    return lambda times: np.broadcast_to(anomaly, (len(times), *anomaly.shape))
