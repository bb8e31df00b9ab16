"""What every denoising network shares: the contract, the grid's limits, embeddings.

A backbone F maps a scaled noisy state, the noise level and the forcing to a state-like field,

    F(x (B,C,H,W), c_noise (B,), cond (B,K,H,W) | None) -> (B,C,H,W), float32.

A subclass writes ``network(x, e, ...)`` alone. Here ``x`` holds the state, the condition (zeros
where there is none) and two fixed channels, sin and cos of latitude, since rows of the grid
differ and convolutions cannot tell; ``e`` (B,E) embeds the noise level. The layers that read and
write the channels are called ``stem`` and ``head``; by them weights are carried to other channels.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from gapzoo.core import GapzooError
from gapzoo.denoisers.sphere import pad_sphere

LATITUDE_CHANNELS = 2


class Backbone(nn.Module, ABC):
    """Base of the networks.

    Args:
        channels: C, channels of the state.
        cond_channels: K, channels of the condition, 0 for none.
        multiple: H (after padding) and W must be multiples of this.
    """

    def __init__(self, *, channels: int, cond_channels: int, multiple: int) -> None:
        super().__init__()
        self.channels, self.cond_channels, self.multiple = channels, cond_channels, multiple

    @property
    def idle_parameters(self) -> int:
        """Parameters that a sample does not meet in a pass: those of other experts."""
        return 0

    @property
    def input_channels(self) -> int:
        """Channels that ``network`` receives: C + K + 2."""
        return self.channels + self.cond_channels + LATITUDE_CHANNELS

    @abstractmethod
    def network(self, x: Tensor, c_noise: Tensor) -> Tensor:
        """(B, C+K+2, H, W), channels last, and (B,) to (B, C, H, W), H and W being multiples."""

    def forward(self, x: Tensor, c_noise: Tensor, cond: Tensor | None = None) -> Tensor:
        """The contract.

        Args:
            x: (B, C, H, W) scaled noisy state.
            c_noise: (B,) or () noise level as the preconditioning codes it; (B, N) for networks
                whose embedding takes more than one number.
            cond: (B, K, H, W) forcing and static fields, or None for all zeros.

        Raises:
            GapzooError: where shapes disagree with the network's channels or limits.
        """
        self._check(x, cond)
        height, lack = x.shape[-2], -x.shape[-2] % self.multiple
        fields = self._inputs(x, cond)
        if lack:
            fields = pad_sphere(fields, (lack + 1) // 2, 0)[..., : height + lack, :]
        out = self.network(fields, c_noise.float().expand(len(x), *c_noise.shape[1:]))
        top = (lack + 1) // 2
        return out[..., top : top + height, :].float()

    def _inputs(self, x: Tensor, cond: Tensor | None) -> Tensor:
        batch, _, height, width = x.shape
        if cond is None:
            cond = x.new_zeros(batch, self.cond_channels, height, width)
        rows = latitude_features(height, x.device, x.dtype)
        rows = rows[None, :, :, None].expand(batch, -1, -1, width)
        fields = torch.cat([x, cond.to(x.dtype), rows], 1)
        return fields.contiguous(memory_format=torch.channels_last)

    def _check(self, x: Tensor, cond: Tensor | None) -> None:
        if x.ndim != 4 or x.shape[1] != self.channels:
            raise GapzooError(
                f"state of shape {tuple(x.shape)}; this network takes (B, {self.channels}, H, W)"
            )
        expected = (x.shape[0], self.cond_channels, *x.shape[2:])
        if cond is not None and tuple(cond.shape) != expected:
            raise GapzooError(f"condition of shape {tuple(cond.shape)}; expected {expected}")
        if x.shape[-1] % self.multiple:
            raise GapzooError(
                f"{x.shape[-1]} longitudes; this network needs a multiple of {self.multiple}"
            )


def latitude_features(height: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """(2, H): sin and cos of H evenly spaced latitudes, in the grid's own row order."""
    phi = (torch.arange(height, device=device, dtype=dtype) + 0.5) * (math.pi / height)
    return torch.stack([-torch.cos(phi), torch.sin(phi)])


class ScalarEmbedding(nn.Module):
    """Embed a scalar of order one: Fourier features, then a two-layer perceptron.

    (B,) -> (B, E). The ``features`` / 2 frequencies lie evenly in logarithm over ``periods``.
    """

    frequencies: Tensor

    def __init__(
        self, size: int, features: int = 64, periods: tuple[float, float] = (0.1, 8.0)
    ) -> None:
        super().__init__()
        shortest, longest = (math.log(p) for p in periods)
        period = torch.exp(torch.linspace(longest, shortest, features // 2))
        self.register_buffer("frequencies", 2 * math.pi / period, persistent=False)
        self.mlp = nn.Sequential(nn.Linear(features, size), nn.SiLU(), nn.Linear(size, size))

    def forward(self, c: Tensor) -> Tensor:
        """(B,) to (B, E)."""
        angle = c[:, None] * self.frequencies
        return self.mlp(torch.cat([angle.cos(), angle.sin()], -1))


def zero_init(layer: nn.Module) -> nn.Module:
    """Set a layer's weight and bias to zero, in place."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer
