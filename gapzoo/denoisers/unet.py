"""U-Net: residual blocks on a ladder of grids, attention where the grid is coarse.

Level l has width_l channels on an (H / 2^l, W / 2^l) grid of the sphere. A residual block is

    h = conv(silu(norm(x))),   s, b = linear(silu(e)),
    y = skip(x) + conv(silu(norm(h) (1 + s) + b)),

where e embeds the noise level (FiLM; Dhariwal and Nichol 2021, Appendix A, as used in EDM, Karras
et al. 2022) and the last convolution starts at zero. Each block of the way up also reads the
output of its partner on the way down. The network is equivariant to turns of the state and the
condition by a multiple of 2^(levels - 1) columns.

Full 3x3 convolutions, channels last: on CPUs with matrix units they run at many times the rate
of depthwise ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gapzoo.core import GapzooError
from gapzoo.denoisers import DENOISERS
from gapzoo.denoisers.backbone import Backbone, ScalarEmbedding, zero_init
from gapzoo.denoisers.sphere import SphereConv


def group_norm(channels: int, affine: bool = True) -> nn.GroupNorm:
    """Group norm of 16 channels a group (or one group, where 16 is no divisor)."""
    return nn.GroupNorm(channels // 16 if channels % 16 == 0 else 1, channels, affine=affine)


class ResidualBlock(nn.Module):
    """(B, C_in, H, W) and an embedding (B, E) to (B, C_out, H, W)."""

    def __init__(self, inputs: int, outputs: int, embedding: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.norm_in, self.norm_out = group_norm(inputs), group_norm(outputs, affine=False)
        self.conv_in = SphereConv(inputs, outputs)
        self.film = nn.Linear(embedding, 2 * outputs)
        self.dropout = nn.Dropout(dropout)
        self.conv_out = zero_init(SphereConv(outputs, outputs))
        self.skip = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        """Apply the block; ``e`` has its activation behind it."""
        h = self.conv_in(F.silu(self.norm_in(x)))
        scale, shift = self.film(e)[:, :, None, None].to(h.dtype).chunk(2, 1)
        h = F.silu(torch.addcmul(shift, self.norm_out(h), 1 + scale))
        return self.skip(x) + self.conv_out(self.dropout(h))


class Attention(nn.Module):
    """Global self-attention over the points of a grid, (B, C, H, W) to the same."""

    def __init__(self, channels: int, head: int = 64) -> None:
        super().__init__()
        head = min(head, channels)
        if channels % head:
            raise GapzooError(f"{channels} channels cannot be split into heads of {head}")
        self.heads, self.norm = channels // head, group_norm(channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = zero_init(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Attend, with a residual connection."""
        batch, channels, height, width = x.shape
        qkv = self.qkv(self.norm(x)).permute(0, 2, 3, 1)
        qkv = qkv.reshape(batch, height * width, 3, self.heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2)
        y = y.reshape(batch, height, width, channels).permute(0, 3, 1, 2)
        return x + self.out(y)


class UNet(Backbone):
    """The network.

    Args:
        channels, cond_channels: see :class:`Backbone`.
        widths: channels of each level, finest first; each grid is half as fine as the last.
        blocks: residual blocks of each level, on the way down and again on the way up.
        attention: attention blocks in the middle, on the coarsest grid.
        embedding: E, size of the noise level's embedding.
        dropout: share of features dropped within blocks in training.
    """

    def __init__(
        self,
        *,
        channels: int,
        cond_channels: int = 0,
        widths: Sequence[int] = (64, 128, 192),
        blocks: Sequence[int] = (2, 2, 2),
        attention: int = 1,
        embedding: int = 256,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(
            channels=channels,
            cond_channels=cond_channels,
            multiple=2 ** (len(widths) - 1),
        )
        if len(widths) != len(blocks):
            raise GapzooError(f"{len(widths)} widths but {len(blocks)} block counts; give as many")
        self.embed = ScalarEmbedding(embedding)
        self.stem = SphereConv(self.input_channels, widths[0])
        self.down, self.shrink, self.grow, self.up = (nn.ModuleList() for _ in range(4))
        for level, (width, count) in enumerate(zip(widths, blocks, strict=True)):
            self._add_level(level, widths, width, count, (embedding, dropout))
        coarse = widths[-1]
        self.middle = nn.ModuleList(
            nn.ModuleList([Attention(coarse), ResidualBlock(coarse, coarse, embedding, dropout)])
            for _ in range(attention)
        )
        self.norm = group_norm(widths[0])
        self.head = zero_init(SphereConv(widths[0], channels))
        self.to(memory_format=torch.channels_last)

    def _add_level(
        self, level: int, widths: Sequence[int], width: int, count: int, rest: tuple[int, float]
    ) -> None:
        def block(inputs: int) -> ResidualBlock:
            return ResidualBlock(inputs, width, *rest)

        self.down.append(nn.ModuleList(block(width) for _ in range(count)))
        self.up.append(nn.ModuleList(block(2 * width) for _ in range(count)))
        if level + 1 < len(widths):
            self.shrink.append(nn.Conv2d(width, widths[level + 1], 2, stride=2))
            self.grow.append(nn.Conv2d(widths[level + 1], width, 1))

    def network(self, x: Tensor, c_noise: Tensor) -> Tensor:
        """See :meth:`Backbone.network`."""
        e = F.silu(self.embed(c_noise))
        x, skips = self._descend(self.stem(x), e)
        for pair in self.middle:
            attention, block = pair.children()
            x = block(attention(x), e)
        x = self._ascend(x, skips, e)
        return self.head(F.silu(self.norm(x)))

    def _descend(self, x: Tensor, e: Tensor) -> tuple[Tensor, list[Tensor]]:
        skips: list[Tensor] = []
        for level, blocks in enumerate(self.down):
            if level:
                x = self.shrink[level - 1](x)
            for block in blocks:  # type: ignore[attr-defined]
                x = block(x, e)
                skips.append(x)
        return x, skips

    def _ascend(self, x: Tensor, skips: list[Tensor], e: Tensor) -> Tensor:
        for level in reversed(range(len(self.up))):
            for block in self.up[level]:  # type: ignore[attr-defined]
                x = block(torch.cat([x, skips.pop()], 1), e)
            if level:
                x = F.interpolate(self.grow[level - 1](x), scale_factor=2.0, mode="nearest")
        return x


@DENOISERS.register("unet_small")
def unet_small(channels: int, cond_channels: int = 0, **overrides: Any) -> UNet:
    """4 M parameters, for the 64 x 32 world on one CPU core."""
    sizes: dict[str, Any] = {"widths": (64, 96, 128), "blocks": (2, 2, 2)}
    return UNet(channels=channels, cond_channels=cond_channels, **(sizes | overrides))


@DENOISERS.register("unet_base")
def unet_base(channels: int, cond_channels: int = 0, **overrides: Any) -> UNet:
    """20 M parameters, for a day on a CPU or an hour on a GPU."""
    sizes: dict[str, Any] = {"widths": (96, 192, 256), "blocks": (2, 3, 3), "embedding": 384}
    return UNet(channels=channels, cond_channels=cond_channels, **(sizes | overrides))


@DENOISERS.register("unet_large")
def unet_large(channels: int, cond_channels: int = 0, **overrides: Any) -> UNet:
    """75 M parameters, for GPUs."""
    sizes: dict[str, Any] = {"widths": (160, 320, 512), "blocks": (3, 3, 3), "embedding": 512}
    sizes |= {"attention": 2, "dropout": 0.1}
    return UNet(channels=channels, cond_channels=cond_channels, **(sizes | overrides))
