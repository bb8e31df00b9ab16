"""The contract of everything that carries a state forward."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
import pandas as pd
from torch import Tensor

from gapzoo.core import GapzooError, MemberGenerator
from gapzoo.core.world import World


class Forecaster(ABC):
    """Carries normalised states of a world forward in time.

    Args:
        world: what the states are anomalies of.
    """

    stochastic = False
    """Whether a step draws from its generator."""
    physical = False
    """Whether its states are a physical model's own: none that is finite has left the climate."""

    def __init__(self, world: World) -> None:
        self.world = world

    @abstractmethod
    def step(
        self,
        state: Tensor,
        time: pd.Timestamp,
        hours: int,
        forcing: np.ndarray | None = None,
        generator: MemberGenerator | None = None,
    ) -> Tensor:
        """The states some hours later.

        Args:
            state: (M, C, H, W) normalised states, all valid at ``time``.
            time: their valid time.
            hours: how far to go, positive.
            forcing: (F, H, W) forcing anomalies in SI units at ``time``; None is climatology.
            generator: for stochastic forecasters.

        Returns:
            (M, C, H, W) normalised at ``time + hours``.
        """

    def steps(
        self,
        states: Sequence[Tensor],
        times: Sequence[pd.Timestamp],
        hours: int,
        forcings: Sequence[np.ndarray | None],
        generators: Sequence[MemberGenerator],
    ) -> list[Tensor]:
        """``step`` for several initial times; networks take them in one batch."""
        each = zip(states, times, forcings, generators, strict=True)
        return [self.step(x, time, hours, forcing, g) for x, time, forcing, g in each]

    def check(self, state: Tensor, hours: int) -> None:
        """Refuse a lead or a state that no forecaster takes."""
        if hours <= 0:
            raise GapzooError(f"a forecast of {hours} h; give a positive lead")
        if tuple(state.shape[1:]) != self.world.shape:
            raise GapzooError(
                f"state of shape {tuple(state.shape)}; {self.world.name} has (members, "
                f"channels, latitude, longitude) = (M, {', '.join(map(str, self.world.shape))})"
            )
