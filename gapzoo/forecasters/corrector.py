"""What matrices leave of a network's errors, by a small network of each place's surroundings.

Once a forecast g of the state x is corrected linearly (``gapzoo.forecasters.corrected``), with the
adiabatic tendency N between them, the truth t is taken to be

    t = g + r F([g; (g - x) / d; N / n; a; cond]),

where d, n and r are root mean squares of a channel's change, tendency and error, a is the forecast
in physical units less the climate's mean over the globe, by its spread there (how moist or how
stable a column is an anomaly does not say), and cond is the condition of every network. F is blind
to what is further away than its convolutions reach, as convection, condensation and friction are:

    h <- h + B s(A s(h)),    A 3x3 on the sphere, B 1x1, s the SiLU,

between two 1x1 layers, the last of which is zero at first, without normalisation.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from gapzoo.core import GapzooError
from gapzoo.core.precision import autocast
from gapzoo.core.world import World
from gapzoo.denoisers.sphere import SphereConv

WIDTH, BLOCKS = 96, 3
FIELDS = 4
"""State-like fields that F is given."""
LEAST = 1e-6
"""Of a root mean square that is divided by."""
MONTHS = pd.date_range("2001-01-15", periods=12, freq=pd.DateOffset(months=1))


class _Block(nn.Module):
    """h + B s(A s(h))."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.near, self.here = SphereConv(width, width), SphereConv(width, width, 1)

    def forward(self, h: Tensor) -> Tensor:
        return h + self.here(silu(self.near(silu(h))))


class CorrectorNetwork(nn.Module):
    """F.

    Args:
        channels: C, of the state.
        cond_channels: K, of the condition.
        width: of the layers inside.
        blocks: how many; F sees as many points in each direction.
    """

    change: Tensor
    flow: Tensor
    error: Tensor
    mean: Tensor
    spread: Tensor

    def __init__(
        self, channels: int, cond_channels: int, width: int = WIDTH, blocks: int = BLOCKS
    ) -> None:
        super().__init__()
        self.stem = SphereConv(FIELDS * channels + cond_channels, width, 1)
        self.blocks = nn.Sequential(*(_Block(width) for _ in range(blocks)))
        self.head = SphereConv(width, channels, 1)
        for part in self.head.parameters():
            nn.init.zeros_(part)
        for name in ("change", "flow", "error", "mean", "spread"):
            self.register_buffer(name, torch.ones(channels, 1, 1))

    def forward(self, fields: Tensor) -> Tensor:
        """(B, 4 C + K, H, W) to (B, C, H, W), float32."""
        inside = self.stem(fields.contiguous(memory_format=torch.channels_last))
        return self.head(silu(self.blocks(inside))).float()

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> Self:
        """A network of these weights, of the sizes that they have."""
        width, inputs = tensors["stem.weight"].shape[:2]
        channels = len(tensors["head.weight"])
        blocks = sum(name.endswith("near.weight") for name in tensors)
        network = cls(channels, inputs - FIELDS * channels, width, blocks)
        network.load_state_dict(dict(tensors))
        return network.eval().requires_grad_(False)


class Corrector:
    """F and what it is given.

    Args:
        world: that of the states.
        network: F, on the processor that it computes on.

    Raises:
        GapzooError: for a network of other channels.
    """

    def __init__(self, world: World, network: CorrectorNetwork) -> None:
        self.world, self.network = world, network
        inputs = FIELDS * len(world.channels) + world.cond_channels
        if network.stem.in_channels != inputs or len(network.error) != len(world.channels):
            raise GapzooError(
                f"a corrector of {len(network.error)} channels, where {world.name} has "
                f"{len(world.channels)} and a condition; fit it with 'gapzoo calibrate'"
            )

    @classmethod
    def new(cls, world: World, width: int = WIDTH, blocks: int = BLOCKS) -> Corrector:
        """One that corrects nothing yet, its physical scales those of the world's climatology."""
        network = CorrectorNetwork(len(world.channels), world.cond_channels, width, blocks)
        usual = world.mean(MONTHS)
        network.mean.copy_(usual.mean((0, 2, 3))[:, None, None])
        power = usual.var((0, 2, 3)) + world.std.square().mean((1, 2))
        network.spread.copy_(power.sqrt().clamp_min(LEAST)[:, None, None])
        return cls(world, network.to(memory_format=torch.channels_last))  # type: ignore[call-overload]

    def scale_to(self, forecast: Tensor, start: Tensor, flow: Tensor | None, truth: Tensor) -> None:
        """Take the root mean squares of d, n and r from samples (N, C, H, W) of each."""
        given = {"change": forecast - start, "error": truth - forecast}
        given |= {} if flow is None else {"flow": flow}
        for name, field in given.items():
            size = field.square().mean((0, 2, 3)).sqrt().clamp_min(LEAST)
            getattr(self.network, name).copy_(size[:, None, None])

    def fields(
        self,
        forecast: Tensor,
        start: Tensor,
        flow: Tensor | None,
        times: pd.DatetimeIndex,
        forcing: np.ndarray | None,
    ) -> Tensor:
        """(B, 4 C + K, H, W): what F is given.

        Args:
            forecast, start: (B, C, H, W) normalised states.
            flow: N between them, alike; None counts as zero.
            times: of each start.
            forcing: (B, F, H, W) anomalies at them, SI units; None is climatology.
        """
        own, like = self.network, forecast
        flow = torch.zeros_like(forecast) if flow is None else flow / own.flow
        known = times.unique()
        row = torch.from_numpy(known.get_indexer(times)).to(like.device)
        usual = self.world.mean(known).to(like)[row]
        physical = (usual + forecast * self.world.std.to(like) - own.mean) / own.spread
        cond = self.world.condition(times, forcing).to(like)
        return torch.cat([forecast, (forecast - start) / own.change, flow, physical, cond], 1)

    @torch.no_grad()
    def __call__(
        self,
        forecast: Tensor,
        start: Tensor,
        flow: Tensor | None,
        times: pd.DatetimeIndex,
        forcing: np.ndarray | None,
    ) -> Tensor:
        """A forecast (B, C, H, W) corrected; see ``fields``."""
        self.network.to(forecast.device)
        told = self.fields(forecast, start, flow, times, forcing)
        with autocast(forecast.device, torch.bfloat16):
            return forecast + self.network.error * self.network(told)

    def to_tensors(self, name: str) -> dict[str, Tensor]:
        """For a checkpoint."""
        return {f"{name}.{key}": value for key, value in self.network.state_dict().items()}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], name: str, world: World) -> Self | None:
        """The inverse of ``to_tensors``; None where there is none."""
        own = f"{name}."
        found = {k.removeprefix(own): v for k, v in tensors.items() if k.startswith(own)}
        return cls(world, CorrectorNetwork.of(found)) if found else None
