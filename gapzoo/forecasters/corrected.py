"""A network's step, corrected by what is known of its errors, in one stage or several.

A stage is a pass of the forecaster, the matrices that were fitted to its errors
(``gapzoo.forecasters.linear``) and, where it was trained, a network that knows what they leave
(``gapzoo.forecasters.corrector``). A step of a day may be two stages of twelve hours; those of the
second are fitted to what the first gives, not to states of the archive, and so know the errors
that they meet. What a stage gives is projected onto the states of the world's spectral model, and
so is what N is taken of.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from gapzoo.core import MemberGenerator
from gapzoo.core.primitive import Adiabatic
from gapzoo.core.truncation import truncated
from gapzoo.core.world import World
from gapzoo.diffusion.zonal import ZonalCovariance
from gapzoo.forecasters.base import Forecaster
from gapzoo.forecasters.corrector import Corrector
from gapzoo.forecasters.linear import Correction

LINEAR, LOCAL = "correction", "corrector"
"""What the names of their tensors begin with."""


@dataclass(frozen=True)
class Stage:
    """What follows one pass of a network: matrices and then, where it is known, a network.

    Args:
        linear: see Correction.
        local: see ``gapzoo.forecasters.corrector``.
    """

    linear: Correction
    local: Corrector | None = None

    def to_tensors(self, hours: int, number: int) -> dict[str, Tensor]:
        """For a checkpoint, as the stage ``number`` (from 1) of a step of ``hours``."""
        end = f"{hours}-{number}"
        local = {} if self.local is None else self.local.to_tensors(f"{LOCAL}{end}")
        return self.linear.to_tensors(f"{LINEAR}{end}") | local


def corrections(
    tensors: dict[str, Tensor], basis: ZonalCovariance, world: World
) -> dict[int, list[Stage]]:
    """Those of a checkpoint's tensors, by lead in hours.

    Raises:
        GapzooError: where they are of another basis, other channels or an older form.
    """
    ends = [key.removesuffix(".least") for key in tensors if key.endswith(".least")]
    found: dict[int, list[Stage]] = defaultdict(list)
    for name in sorted((n for n in ends if n.startswith(LINEAR)), key=lambda n: (len(n), n)):
        linear, end = Correction.from_tensors(tensors, name, basis), name.removeprefix(LINEAR)
        local = Corrector.from_tensors(tensors, f"{LOCAL}{end}", world)
        found[int(end.split("-")[0])].append(Stage(linear, local))
    return dict(found)


class Corrected(Forecaster):
    """A forecaster whose steps of known leads are corrected.

    Args:
        forecaster: in the world whose states the corrections are of.
        corrections: by lead in hours the stages that a step is made of, in equal parts; other leads
            stay as they are.
    """

    def __init__(self, forecaster: Forecaster, corrections: dict[int, list[Stage]]) -> None:
        super().__init__(forecaster.world)
        self.plain, self.corrections = forecaster, corrections
        self.stochastic = forecaster.stochastic
        self.adiabatic, self.space = Adiabatic.of(self.world), truncated(self.world)

    def step(
        self,
        state: Tensor,
        time: pd.Timestamp,
        hours: int,
        forcing: np.ndarray | None = None,
        generator: MemberGenerator | None = None,
    ) -> Tensor:
        """See Forecaster."""
        return self.steps([state], [time], hours, [forcing], [generator])[0]  # type: ignore[list-item]

    def steps(
        self,
        states: Sequence[Tensor],
        times: Sequence[pd.Timestamp],
        hours: int,
        forcings: Sequence[np.ndarray | None],
        generators: Sequence[MemberGenerator],
    ) -> list[Tensor]:
        """See Forecaster; the forcing anomalies persist over the stages."""
        stages = self.corrections.get(hours)
        if not stages:
            return self.plain.steps(states, times, hours, forcings, generators)
        lead, found = hours // len(stages), list(states)
        for number, stage in enumerate(stages):
            here = [time + pd.Timedelta(hours=number * lead) for time in times]
            made = self.plain.steps(found, here, lead, forcings, generators)
            found = self._after(stage, made, found, here, lead, forcings)
        return found

    def _after(
        self,
        stage: Stage,
        forecasts: Sequence[Tensor],
        starts: Sequence[Tensor],
        times: Sequence[pd.Timestamp],
        hours: int,
        forcings: Sequence[np.ndarray | None],
    ) -> list[Tensor]:
        """Forecasts of all initial times, corrected together."""
        sizes = [len(start) for start in starts]
        which = np.repeat(np.arange(len(sizes)), sizes)
        each, sea = pd.DatetimeIndex(list(times))[which], None
        if any(forcing is not None for forcing in forcings):
            shape = next(forcing.shape for forcing in forcings if forcing is not None)
            known = [np.zeros(shape, np.float32) if f is None else f for f in forcings]
            sea = np.stack(known)[which]
        whole = torch.cat(list(forecasts)), torch.cat(list(starts))
        return list(self.corrected(stage, *whole, each, hours, sea).split(sizes))

    def corrected(
        self,
        stage: Stage,
        forecast: Tensor,
        start: Tensor,
        times: pd.DatetimeIndex,
        hours: int,
        forcing: np.ndarray | None = None,
    ) -> Tensor:
        """What a stage makes of forecasts.

        Args:
            stage: as fitted.
            forecast, start: (B, C, H, W).
            times: of each start.
            hours: lead.
            forcing: (B, F, H, W) anomalies at the start, SI units.
        """
        needed = stage.linear.flowing or stage.local is not None
        flow = self.flow(forecast, start, times, hours) if needed else None
        found = self.within(stage.linear(forecast, start, flow))
        if stage.local is None:
            return found
        return self.within(stage.local(found, start, flow, times, forcing))

    def flow(
        self, forecast: Tensor, start: Tensor, times: pd.DatetimeIndex, hours: int
    ) -> Tensor | None:
        """N halfway between states (B, C, H, W); None where the world has no winds on levels.

        Args:
            forecast, start: (B, C, H, W).
            times: of each start.
            hours: lead.
        """
        if self.adiabatic is None:
            return None
        halfway = times + pd.Timedelta(hours=hours / 2)
        return self.adiabatic(self.within((forecast + start) / 2), halfway)

    def within(self, states: Tensor) -> Tensor:
        """Projected onto the states of the spectral model of the world, where there is one."""
        return states if self.space is None else self.space.to(states.device)(states)
