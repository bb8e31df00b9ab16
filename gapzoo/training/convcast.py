"""Train ConvCast: the weighted squared error of the change, in units of its typical size.

    loss = E[ mean_w ((x_hat(t + h) - x(t + h)) / (scale_c g(h)))^2 ]

over states and leads, mean_w being the mean over channels and grid points with weights of mean 1;
persistence has a loss near 1. A batch is a dict with ``state`` and ``target`` (B,C,H,W), ``hours``
(B,) and ``cond`` (B,K,H,W).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from gapzoo.core import GapzooError, nearest
from gapzoo.core.precision import autocast
from gapzoo.diffusion import DenoisingLoss, LossValue
from gapzoo.forecasters import NETWORKS
from gapzoo.training.levels import LossByLevel
from gapzoo.training.module import PRECISIONS, TrainedModule, new_backbone
from gapzoo.training.optimise import Optimisation, seeded

LEADS = (6.0, 12.0, 18.0)
"""Hours that part the bins of the log."""


class ConvCast(TrainedModule):
    """A registered forecasting network and its training.

    Args:
        name: the network's registered name.
        channels: C, channels of the state.
        cond_channels: K, channels of the condition.
        change: (C,) or (C,H,W) typical change of normalised states over the data's step.
        area_weights: (H,) or None.
        channel_weights: (C,) or None.
        point_weights: broadcastable to (C,H,W), or None.
        architecture: arguments that the named network takes instead of its own.
        precision: ``bf16`` or ``fp32``, of the network alone.
        optimisation, seed: see :class:`TrainedModule`.
    """

    weights: Tensor
    network: Any
    level = "hours"

    def __init__(
        self,
        name: str = "convcast_small",
        *,
        channels: int,
        cond_channels: int = 0,
        change: Tensor | None = None,
        area_weights: Tensor | None = None,
        channel_weights: Tensor | None = None,
        point_weights: Tensor | None = None,
        architecture: dict[str, Any] | None = None,
        precision: str = "bf16",
        optimisation: Optimisation | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(optimisation, seed)
        if precision not in PRECISIONS:
            raise GapzooError(f"precision '{precision}'; {nearest(precision, PRECISIONS)}")
        sizes = {"channels": channels, "cond_channels": cond_channels}
        self.name, self.arguments = name, sizes | (architecture or {})
        self.network = new_backbone(seed, NETWORKS.build, name=name, **self.arguments)
        if change is not None:
            self.network.set_scale(change)
        self.restart_average()
        self.autocast = PRECISIONS[precision]
        weighting = DenoisingLoss(
            channel_weights=channel_weights, area_weights=area_weights, point_weights=point_weights
        )
        self.register_buffer("weights", weighting.weights, persistent=False)

    @property
    def trained(self) -> nn.Module:
        """The network whose weights move."""
        return self.network

    @property
    def kept(self) -> nn.Module:
        """Its running average."""
        return self.averaged

    @property
    def live(self) -> nn.Module:
        """The network whose weights move."""
        return self.network

    @property
    def backbone(self) -> nn.Module:
        """The averaged network: what a checkpoint holds."""
        return self.averaged

    def new_levels(self) -> LossByLevel:
        """The loss by lead."""
        return LossByLevel(LEADS)

    def example(self, state: Tensor, cond: Tensor) -> Tensor:
        """Forecasts."""
        return self._forecast(self.network, state, torch.full((len(state),), LEADS[0]), cond)

    def forward(self, x: Tensor, hours: Tensor, cond: Tensor | None = None) -> Tensor:
        """The averaged network's forecast, (B,C,H,W)."""
        return self._forecast(self.averaged, x, hours, cond)

    def noise(self, batch: Mapping[str, Tensor], *keys: object) -> tuple[Tensor, ...]:
        """What the loss draws for a batch, by (seed, keys) alone; here nothing."""
        return ()

    def share(self, keys: tuple[object, ...]) -> tuple[int, int]:
        """This process's number and how many part a batch's noise; one validates alone."""
        return self.part if self._trainer is not None and keys[0] == "train" else (0, 1)

    def loss(self, network: Any, batch: Mapping[str, Tensor], *noise: Tensor) -> LossValue:
        """The loss of a batch, its ``ratio`` being the lead in hours."""
        hours, cond = batch["hours"].float(), batch.get("cond")
        forecast = self._forecast(network, batch["state"], hours, cond)
        return self.weighed(((forecast - batch["target"]) / network.spread(hours)) ** 2, hours)

    def weighed(self, points: Tensor, hours: Tensor) -> LossValue:
        """The weighted mean of a loss at each point (B,C,H,W), and its leads (B,)."""
        losses = self.each(points)
        return LossValue(losses.mean(), losses.detach(), hours)

    def each(self, points: Tensor) -> Tensor:
        """(B,): the weighted mean over a sample's points (B,C,H,W)."""
        weights = self.weights.expand(points.shape[1:])
        return (weights / weights.mean() * points).flatten(1).mean(1)

    def training_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> Tensor:
        """Loss of a batch."""
        keys = self.keys(batch_idx)
        noise = self.noise(batch, *keys)
        with seeded(self.seed, *keys, self.global_rank, "layers", device=self.device):
            value = self.loss(self.network, batch, *noise)
        self.log("loss", value.loss, prog_bar=True, logger=False)
        self.train_levels.update(value)
        return self.touched(value.loss)

    def validation_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> None:
        """Loss of the averaged network, with the same noise at every validation."""
        noise = self.noise(batch, "validate", batch_idx)
        self.val_levels.update(self.loss(self.averaged, batch, *noise))

    def train(self, mode: bool = True) -> ConvCast:
        """Set training mode; the average stays in evaluation mode."""
        super().train(mode)
        self.averaged.eval()
        return self

    def _forecast(
        self, network: nn.Module, x: Tensor, hours: Tensor, cond: Tensor | None, *noise: Tensor
    ) -> Tensor:
        with autocast(x.device, self.autocast):
            return network(x, hours, cond, *noise)
