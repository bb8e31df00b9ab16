"""A forecaster of one world that serves in another."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from torch import Tensor

from gapzoo.core import MemberGenerator
from gapzoo.core.world import World
from gapzoo.forecasters.base import Forecaster


class Abroad(Forecaster):
    """Takes and gives states that one world normalises, and steps them in its own.

    Args:
        forecaster: of its own world.
        world: whose states it is given; of the same channels and grid.
    """

    def __init__(self, forecaster: Forecaster, world: World) -> None:
        super().__init__(world)
        self.home, self.stochastic = forecaster, forecaster.stochastic
        world.require(forecaster.world, "a forecaster")

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
        found = self.home.step(self._in(state, time), time, hours, forcing, generator)
        return self._out(found, time, hours)

    def steps(
        self,
        states: Sequence[Tensor],
        times: Sequence[pd.Timestamp],
        hours: int,
        forcings: Sequence[np.ndarray | None],
        generators: Sequence[MemberGenerator],
    ) -> list[Tensor]:
        """See Forecaster."""
        inside = [self._in(state, time) for state, time in zip(states, times, strict=True)]
        found = self.home.steps(inside, times, hours, forcings, generators)
        return [self._out(state, time, hours) for state, time in zip(found, times, strict=True)]

    def _in(self, state: Tensor, time: pd.Timestamp) -> Tensor:
        then = pd.DatetimeIndex([time])
        return self.home.world.renormalise(state[None], then, self.world)[0]

    def _out(self, state: Tensor, time: pd.Timestamp, hours: int) -> Tensor:
        then = pd.DatetimeIndex([time + pd.Timedelta(hours=hours)])
        return self.world.renormalise(state[None], then, self.home.world)[0]
