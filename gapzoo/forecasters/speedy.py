"""SPEEDY as a forecaster: the true model of the default world, and the LETKF's."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from gapzoo.core import GapzooError, MemberGenerator
from gapzoo.core.climatology import evaluate
from gapzoo.core.world import World
from gapzoo.forecasters import FORECASTERS
from gapzoo.forecasters.base import Forecaster
from gapzoo.speedy.model import SpeedyModel

TRUNCATIONS = {(32, 64): 21, (48, 96): 31}


@FORECASTERS.register("speedy")
class Speedy(Forecaster):
    """Integrates each member with SPEEDY.

    Args:
        world: its channels must begin with SPEEDY's prognostic ones; others are its diagnostics.
        hours: length of one integration; leads are multiples of it.
        parameters: changed physics, for forecasts with model error.
    """

    physical = True

    def __init__(
        self, world: World, *, hours: int = 6, parameters: dict[str, float] | None = None
    ) -> None:
        super().__init__(world)
        if world.grid.shape not in TRUNCATIONS:
            raise GapzooError(f"SPEEDY has no grid of {world.grid.shape}; one of {TRUNCATIONS}")
        truncation = TRUNCATIONS[world.grid.shape]
        self.model = SpeedyModel(truncation, hours=hours, parameters=parameters)
        wanted = self.model.channels.labels[: self.model.prognostic]
        if world.channels.labels[: len(wanted)] != wanted:
            raise GapzooError(f"SPEEDY needs the channels {wanted[0]} ... {wanted[-1]} first")
        made = self.model.channels
        for label in (x for x in world.channels.labels if x not in made.labels):
            raise GapzooError(
                f"SPEEDY in frames of {hours} h has no '{label}'; take frames of another length "
                "('hours') or a world without it"
            )
        self._kept = [made.index(channel) for channel in world.channels]

    def step(
        self,
        state: Tensor,
        time: pd.Timestamp,
        hours: int,
        forcing: np.ndarray | None = None,
        generator: MemberGenerator | None = None,
    ) -> Tensor:
        """See Forecaster; SST is the world's climatology plus ``forcing[0]``, held."""
        self.check(state, hours)
        if hours % self.model.hours:
            raise GapzooError(f"a lead of {hours} h; SPEEDY here steps {self.model.hours} h")
        leads = range(self.model.hours, hours + 1, self.model.hours)
        times = time + pd.to_timedelta(list(leads), unit="h")
        sst = evaluate(self.world.forcing_climatology, times)[:, 0]
        if forcing is not None:
            sst = sst + forcing[:1]
        start = pd.DatetimeIndex([time])
        physical = self.world.denormalise(state[None], start)[0].detach().double().cpu().numpy()
        ends = np.ascontiguousarray(self.model.carry(physical, time, sst)[:, self._kept])
        return self.world.normalise(torch.from_numpy(ends)[None], times[-1:])[0].to(state)
