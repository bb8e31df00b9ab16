"""Train DiffCast: the denoising loss of the normalised change, given the state before.

    r = (x(t + h) - x(t)) / (scale_c g(h)),   loss = EDM's of r (:mod:`gapzoo.diffusion.loss`)

as GenCast's (Price et al. 2025, arXiv 2312.15796), at log-normal noise levels. Batches are those of
:mod:`gapzoo.training.convcast`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from gapzoo.core import GapzooError
from gapzoo.diffusion import DenoisingLoss, LossValue
from gapzoo.training.convcast import LEADS, ConvCast
from gapzoo.training.levels import LossByLevel
from gapzoo.training.optimise import generator_for

NOISE_MEAN, NOISE_STD = -0.4, 1.4


class DiffCast(ConvCast):
    """A registered network with a denoiser of the change, and its training.

    Args:
        name: the network's registered name.
        options: see :class:`ConvCast`.

    Raises:
        GapzooError: for a network that has no denoiser.
    """

    level = "noise"

    def __init__(self, name: str = "diffcast_small", **options: Any) -> None:
        super().__init__(name, **options)
        if not hasattr(self.network, "denoiser"):
            raise GapzooError(f"network '{name}' has no denoiser; try diffcast_small")
        self.denoising = DenoisingLoss(
            mean=NOISE_MEAN, std=NOISE_STD, point_weights=self.weights.clone()
        )

    def new_levels(self) -> LossByLevel:
        """The loss by noise level."""
        return LossByLevel()

    def noise(self, batch: Mapping[str, Tensor], *keys: object) -> tuple[Tensor, ...]:
        """(B,) noise levels and (B,C,H,W) noise; processes take alternate rows of one batch."""
        rank, size = self.share(keys)
        generator = generator_for(self.seed, *keys, device=self.device)
        whole = len(batch["state"]) * size
        levels = self.denoising.draw(whole, generator)
        shape = (whole, *batch["state"].shape[1:])
        noise = torch.randn(shape, generator=generator, device=self.device)
        return levels[rank::size], noise[rank::size]

    def loss(self, network: Any, batch: Mapping[str, Tensor], *noise: Tensor) -> LossValue:
        """The loss of a batch at its noise levels (B,) and noise (B,C,H,W)."""
        levels, z = noise
        hours, state = batch["hours"].float(), batch["state"]
        change = (batch["target"] - state) / network.spread(hours)
        cond, denoiser = network.given(state, hours, batch.get("cond")), network.denoiser
        denoiser.autocast = self.autocast
        return self.denoising.at(denoiser, change, z, levels, cond=cond)

    def example(self, state: Tensor, cond: Tensor) -> Tensor:
        """One evaluation, as training computes it."""
        return self._forecast(self.network, state, torch.full((len(state),), LEADS[0]), cond)

    def forward(
        self, x: Tensor, hours: Tensor, cond: Tensor | None = None, z: Tensor | None = None
    ) -> Tensor:
        """The averaged network's draw (B,C,H,W) by noise of that shape; None is the mean."""
        drawn = () if z is None else (z,)
        return self._forecast(self.averaged, x, hours, cond, *drawn)
