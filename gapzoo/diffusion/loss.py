"""The weighted denoising loss (Karras et al. 2022, arXiv 2206.00364, section 5).

    loss = E[ lambda(r) mean_w (x_hat - x)^2 ],   lambda(r) = (r^2 + sd^2) / (r sd)^2

over data x, noise-to-signal ratios r and noise. mean_w is the mean over channels and grid points,
weighted; the weights have mean 1, so that for unit-variance independent data a network that returns
zero has loss 1 at every noise level. The ratios are log-normal, ``log r ~ N(mean, std^2)``, or
log-uniform between two levels; a batch takes evenly spread quantiles, which lowers the variance of
the loss and leaves its mean.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gapzoo.core import GapzooError, nearest
from gapzoo.diffusion.denoiser import Denoiser

LEVELS = ("lognormal", "loguniform")


@dataclass(frozen=True)
class LossValue:
    """The loss of one batch.

    Args:
        loss: () mean over the batch, to be minimised.
        per_sample: (B,) weighted loss of each sample, detached.
        ratio: (B,) its noise-to-signal ratio.
    """

    loss: Tensor
    per_sample: Tensor
    ratio: Tensor


class DenoisingLoss(nn.Module):
    """EDM loss with weights by channel, area and grid point.

    Args:
        levels: ``lognormal`` or ``loguniform`` ratios.
        mean: mean of log r (lognormal).
        std: standard deviation of log r (lognormal).
        low: lowest r (loguniform).
        high: highest r (loguniform).
        sigma_data: standard deviation of the data, as in the preconditioning.
        channel_weights: (C,) or None.
        area_weights: (H,) or None, such as ``Grid.area_weights``.
        point_weights: broadcastable to (C,H,W), or None.

    Raises:
        GapzooError: for unknown levels, or weights that are negative or not finite.
    """

    weights: Tensor

    def __init__(
        self,
        levels: str = "lognormal",
        mean: float = -1.2,
        std: float = 1.2,
        low: float = 0.002,
        high: float = 80.0,
        sigma_data: float = 1.0,
        channel_weights: Tensor | None = None,
        area_weights: Tensor | None = None,
        point_weights: Tensor | None = None,
    ) -> None:
        super().__init__()
        if levels not in LEVELS:
            raise GapzooError(f"no noise levels '{levels}'; {nearest(levels, LEVELS)}")
        if levels == "loguniform" and not 0 < low < high:
            raise GapzooError(f"loguniform levels {low:g}..{high:g} must be positive and ascending")
        self.levels, self.mean, self.std, self.low, self.high = levels, mean, std, low, high
        self.sigma_data = sigma_data
        weights = _weights(channel_weights, area_weights, point_weights)
        self.register_buffer("weights", weights, persistent=False)

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """(count,) ratios at evenly spread quantiles, in random order."""
        device = generator.device
        shift = torch.rand((), generator=generator, device=device, dtype=torch.float64)
        order = torch.randperm(count, generator=generator, device=device)
        quantile = ((order + shift) / count).clamp(1e-6, 1 - 1e-6)
        if self.levels == "lognormal":
            log_ratio = self.mean + self.std * torch.special.ndtri(quantile)
        else:
            log_ratio = math.log(self.low) + quantile * math.log(self.high / self.low)
        return log_ratio.exp().float()

    def forward(
        self,
        denoiser: Denoiser,
        x: Tensor,
        generator: torch.Generator,
        part: tuple[int, int] = (0, 1),
        **cond: Any,
    ) -> LossValue:
        """Loss of a batch.

        Args:
            denoiser: the denoiser to train.
            x: (B,C,H,W) clean, normalised states.
            generator: where noise and noise levels come from (any device).
            part: this process's number and how many there are. The noise is drawn for all of
                them, whose rows alternate, so that it does not depend on how a batch is split.
            cond: conditioning handed to the denoiser, such as ``cond=`` (B,K,H,W).
        """
        (rank, size), device = part, generator.device
        whole = len(x) * size
        ratio = self.draw(whole, generator)[rank::size].to(x)
        noise = torch.randn(whole, *x.shape[1:], generator=generator, device=device)
        noise = noise[rank::size].to(x)
        return self.at(denoiser, x, noise, ratio, **cond)

    def at(
        self, denoiser: Denoiser, x: Tensor, noise: Tensor, ratio: Tensor, **cond: Any
    ) -> LossValue:
        """Loss at given noise (B,C,H,W) and noise-to-signal ratios (B,)."""
        t = denoiser.schedule.t_of_sigma(ratio)
        alpha, sigma = denoiser.scales(x, t)
        error = denoiser(alpha * x + sigma * noise, t, **cond).mean - x
        r = sigma / alpha
        scaled = error / self._scale(denoiser, r)
        per_sample = (self._normalised(x) * scaled**2).flatten(1).mean(1)
        return LossValue(per_sample.mean(), per_sample.detach(), r.flatten().detach())

    def _scale(self, denoiser: Denoiser, r: Tensor) -> Tensor:
        """1 / sqrt(lambda): the denoiser's own error scale, or EDM's c_out."""
        own = getattr(denoiser, "error_scale", None)
        if own is not None:
            return own(r)
        return r * self.sigma_data / (r**2 + self.sigma_data**2).sqrt()

    def _normalised(self, x: Tensor) -> Tensor:
        try:
            weights = self.weights.to(x).expand(x.shape[1:])
        except RuntimeError:
            got, want = tuple(self.weights.shape), tuple(x.shape[1:])
            raise GapzooError(f"loss weights {got} do not fit states {want} (C,H,W)") from None
        return weights / weights.mean()


def _weights(channel: Tensor | None, area: Tensor | None, point: Tensor | None) -> Tensor:
    """(C or 1, H or 1, W or 1) product of the weights."""
    weights = torch.ones(1, 1, 1)
    for name, given, shape in (
        ("channel", channel, (-1, 1, 1)),
        ("area", area, (1, -1, 1)),
        ("point", point, None),
    ):
        if given is None:
            continue
        given = torch.as_tensor(given, dtype=torch.float32)
        if not (torch.isfinite(given).all() and (given >= 0).all() and (given > 0).any()):
            raise GapzooError(f"{name} weights must be finite, not negative and not all zero")
        weights = weights * (given.reshape(shape) if shape else given)
    return weights
