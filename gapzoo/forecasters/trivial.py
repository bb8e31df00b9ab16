"""The forecasters that any other must beat: persistence and climatology."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from gapzoo.core import MemberGenerator
from gapzoo.forecasters import FORECASTERS
from gapzoo.forecasters.base import Forecaster


@FORECASTERS.register("persistence")
class Persistence(Forecaster):
    """The state stays as it is, in SI units: the season moves under it."""

    def step(
        self,
        state: Tensor,
        time: pd.Timestamp,
        hours: int,
        forcing: np.ndarray | None = None,
        generator: MemberGenerator | None = None,
    ) -> Tensor:
        """See Forecaster."""
        self.check(state, hours)
        then = pd.DatetimeIndex([time, time + pd.Timedelta(hours=hours)])
        mean = self.world.mean(then)
        return state + ((mean[0] - mean[1]) / self.world.std).to(state)


@FORECASTERS.register("climatology")
class ClimatologyForecaster(Forecaster):
    """The day-of-year mean, whatever the state."""

    def step(
        self,
        state: Tensor,
        time: pd.Timestamp,
        hours: int,
        forcing: np.ndarray | None = None,
        generator: MemberGenerator | None = None,
    ) -> Tensor:
        """See Forecaster."""
        self.check(state, hours)
        return torch.zeros_like(state)
