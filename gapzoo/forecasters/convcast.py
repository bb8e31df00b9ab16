"""ConvCast: a deterministic network that carries a state forward by 6 to 24 hours.

    x(t + h) = x(t) + scale_c g(h) F(x(t), cond, h),    g(h) = (h / h_0)^(3/4)

where scale_c is the typical change of channel c over the step h_0 of the data, so that F is of
order one at every lead, and a new network (F = 0) is persistence. F is the sphere's U-Net of
:mod:`gapzoo.denoisers.unet` with the lead where the noise level was. Full 3x3 convolutions rather
than ConvNeXt's depthwise ones: forward and backward on one core with bf16 matrix units, a depthwise
7x7 took nine times as long as a full 3x3 on 64 channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from gapzoo.core import GapzooError, MemberGenerator
from gapzoo.core.precision import autocast
from gapzoo.core.world import World
from gapzoo.denoisers.unet import UNet
from gapzoo.forecasters import FORECASTERS, NETWORKS
from gapzoo.forecasters.base import Forecaster

GROWTH = 0.75
LONGEST = 24
"""Hours: the longest lead of one application."""


def growth(hours: Tensor, first: float) -> Tensor:
    """(B,): the typical change over leads (B,) over that over a first one."""
    return (hours / first) ** GROWTH


class ConvCastNetwork(nn.Module):
    """The network.

    Args:
        channels: C, channels of the state.
        cond_channels: K, channels of the condition.
        hours: h_0, the step that ``scale`` belongs to.
        body: arguments of :class:`UNet`.
    """

    scale: Tensor
    forecaster = "convcast"
    """Registered name of what steps with it."""

    def __init__(
        self, *, channels: int, cond_channels: int = 0, hours: float = 6.0, **body: Any
    ) -> None:
        super().__init__()
        self.hours = hours
        self.body = UNet(channels=channels, cond_channels=cond_channels, **body)
        self.register_buffer("scale", torch.ones(channels, 1, 1))

    def set_scale(self, change: Tensor) -> None:
        """Take the typical change over h_0 from (C,) or (C, H, W) values of normalised states.

        It is rounded to what bfloat16 holds, so that a checkpoint keeps it exactly.
        """
        if len(change) != len(self.scale) or not torch.isfinite(change).all():
            raise GapzooError(f"change has {len(change)} channels, expected {len(self.scale)}")
        root = change.float().square().reshape(len(change), -1).mean(1).sqrt()
        self.scale.copy_(root.bfloat16().float()[:, None, None])

    def spread(self, hours: Tensor) -> Tensor:
        """(B, C, 1, 1): the typical change over each of (B,) leads."""
        return self.scale * growth(hours, self.hours)[:, None, None, None]

    def forward(self, x: Tensor, hours: Tensor, cond: Tensor | None = None) -> Tensor:
        """The state later.

        Args:
            x: (B, C, H, W) normalised states.
            hours: (B,) leads.
            cond: (B, K, H, W) condition at the start, or None for zeros.

        Returns:
            (B, C, H, W), float32.
        """
        return x + self.spread(hours) * self.body(x, hours / 12 - 1.25, cond)


@NETWORKS.register("convcast_small")
def convcast_small(channels: int, cond_channels: int = 0, **overrides: Any) -> ConvCastNetwork:
    """4 M parameters, for the 64 x 32 world on one CPU core."""
    sizes: dict[str, Any] = {"widths": (64, 96, 128), "blocks": (2, 2, 2)}
    return ConvCastNetwork(channels=channels, cond_channels=cond_channels, **(sizes | overrides))


@NETWORKS.register("convcast_base")
def convcast_base(channels: int, cond_channels: int = 0, **overrides: Any) -> ConvCastNetwork:
    """20 M parameters, for GPUs."""
    sizes: dict[str, Any] = {"widths": (96, 192, 256), "blocks": (2, 3, 3), "embedding": 384}
    return ConvCastNetwork(channels=channels, cond_channels=cond_channels, **(sizes | overrides))


@FORECASTERS.register("convcast")
class ConvCastForecaster(Forecaster):
    """Steps with a trained network; longer leads are made of equal parts of at most a day.

    Args:
        world: what the states are anomalies of.
        network: trained for that world.
        autocast: type that the network computes in, such as ``torch.bfloat16``; None is full.
    """

    def __init__(
        self, world: World, network: ConvCastNetwork, autocast: torch.dtype | None = None
    ) -> None:
        super().__init__(world)
        self.network, self.autocast = network.eval(), autocast

    def step(
        self,
        state: Tensor,
        time: pd.Timestamp,
        hours: int,
        forcing: np.ndarray | None = None,
        generator: MemberGenerator | None = None,
    ) -> Tensor:
        """See Forecaster; the forcing anomalies persist over the parts."""
        return self._together([state], [time], hours, [forcing], [generator])[0]

    def steps(
        self,
        states: Sequence[Tensor],
        times: Sequence[pd.Timestamp],
        hours: int,
        forcings: Sequence[np.ndarray | None],
        generators: Sequence[MemberGenerator],
    ) -> list[Tensor]:
        """See Forecaster."""
        return self._together(states, times, hours, forcings, generators)

    def drawn(
        self, generators: Sequence[MemberGenerator | None], states: Sequence[Tensor]
    ) -> tuple[Tensor, ...]:
        """What the network takes beside state, lead and condition: (B, ...) each; here nothing."""
        return ()

    def _together(
        self,
        states: Sequence[Tensor],
        times: Sequence[pd.Timestamp],
        hours: int,
        forcings: Sequence[np.ndarray | None],
        generators: Sequence[MemberGenerator | None],
    ) -> list[Tensor]:
        """All initial times as one batch; computed where the network is."""
        sizes, state = [len(s) for s in states], torch.cat(list(states))
        home, state = state.device, state.to(next(self.network.parameters()).device)
        self.check(state, hours)
        parts = -(-hours // LONGEST)
        lead = hours / parts
        for part in range(parts):
            conds = []
            for time, forcing, size in zip(times, forcings, sizes, strict=True):
                when = pd.DatetimeIndex([time + pd.Timedelta(hours=part * lead)])
                anomaly = None if forcing is None else forcing[None]
                cond = self.world.condition(when, anomaly).to(state)
                conds.append(cond.expand(size, -1, -1, -1))
            drawn = self.drawn(generators, state.split(sizes))
            state = self._apply(state, lead, torch.cat(conds), *drawn)
        return list(state.to(home).split(sizes))

    def _apply(self, state: Tensor, hours: float, cond: Tensor, *drawn: Tensor) -> Tensor:
        leads = torch.full((len(state),), float(hours), device=state.device)
        follow = torch.is_grad_enabled() and state.requires_grad  # windows differentiate it
        with torch.set_grad_enabled(follow), autocast(state.device, self.autocast):
            return self.network(state, leads, cond, *drawn)
