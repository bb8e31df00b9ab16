"""A forecaster of one world that serves in another."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from torch import Tensor

from gapzoo.core import GapzooError, MemberGenerator
from gapzoo.core.climatology import evaluate
from gapzoo.core.world import World
from gapzoo.forecasters.base import Forecaster

SAME_SEA = 1e-3
"""Coefficients by which two climatologies of the forcing may differ and count as the same."""


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
        home = forecaster.world
        if world.forcing_channels != home.forcing_channels:
            raise GapzooError(
                f"a forecaster takes the forcing {home.forcing_channels}, {world.name} has "
                f"{world.forcing_channels}; take one that was trained on the same"
            )
        apart = np.subtract(world.forcing_climatology, home.forcing_climatology, dtype=np.float64)
        self._apart = apart if np.abs(apart).max(initial=0.0) > SAME_SEA else None

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
        inside = self._in(state, time)
        found = self.home.step(inside, time, hours, self._sea(forcing, time), generator)
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
        seas = [self._sea(one, time) for one, time in zip(forcings, times, strict=True)]
        found = self.home.steps(inside, times, hours, seas, generators)
        return [self._out(state, time, hours) for state, time in zip(found, times, strict=True)]

    def _sea(self, forcing: np.ndarray | None, time: pd.Timestamp) -> np.ndarray | None:
        """Anomalies (F, H, W) from this world's climatology as those from the forecaster's."""
        if self._apart is None:
            return forcing
        apart = evaluate(self._apart, pd.DatetimeIndex([time]))[0]
        return (apart if forcing is None else forcing + apart).astype(np.float32)

    def _in(self, state: Tensor, time: pd.Timestamp) -> Tensor:
        then = pd.DatetimeIndex([time])
        return self.home.world.renormalise(state[None], then, self.world)[0]

    def _out(self, state: Tensor, time: pd.Timestamp, hours: int) -> Tensor:
        then = pd.DatetimeIndex([time + pd.Timedelta(hours=hours)])
        return self.world.renormalise(state[None], then, self.home.world)[0]


def serving(forecaster: Forecaster, world: World) -> Forecaster:
    """The forecaster for states that a world of the same channels and grid normalises."""
    return forecaster if world.normalises_like(forecaster.world) else Abroad(forecaster, world)
