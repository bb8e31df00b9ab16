"""Transformer on patches of the sphere (after DiT, Peebles and Xie 2023, arXiv 2212.09748).

A convolution on the full grid, tokens of P x P points, blocks, and the way back to the full grid,
where the first convolution's output joins in, so that patches leave no seams. A block is

    x <- x + g1 attention(norm(x) (1 + s1) + b1),    x <- x + g2 mlp(norm(x) (1 + s2) + b2)

with (s, b, g) linear in the embedding of the noise level, zero at first (adaLN-zero).

Attention knows the sphere by rotations of queries and keys (rotary encoding, Su et al. 2021,
arXiv 2104.09864). Half of each head turns with longitude at whole wavenumbers m: q_i . k_j then
depends on m (lambda_i - lambda_j), which is periodic and free of an origin, so that the network is
equivariant to turns by whole patches. The other half turns with latitude at real wavenumbers;
latitude itself is among the inputs.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import DropPath, Mlp
from torch import Tensor, nn

from gapzoo.core import GapzooError
from gapzoo.denoisers import DENOISERS
from gapzoo.denoisers.backbone import Backbone, ScalarEmbedding, zero_init
from gapzoo.denoisers.sphere import SphereConv


def rotations(rows: int, columns: int, head: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """cos and sin, each (rows * columns, head / 2), of the angles by which tokens are turned.

    The first half of the angles are m lambda with m = 1, 2, ...; the rest l phi with l from 1 to
    ``rows``, evenly spaced in logarithm.
    """
    count = head // 4
    longitude = torch.arange(columns, device=device) * (2 * math.pi / columns)
    latitude = (torch.arange(rows, device=device) + 0.5) * (math.pi / rows)
    m = torch.arange(1, count + 1, device=device)
    ell = torch.logspace(0, math.log10(max(rows, 2)), count, device=device)
    zonal = (longitude[:, None] * m)[None].expand(rows, -1, -1)
    meridional = (latitude[:, None] * ell)[:, None].expand(-1, columns, -1)
    angles = torch.cat([zonal, meridional], -1).flatten(0, 1)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
    """Turn pairs of features (..., N, D) by the angles (N, D / 2)."""
    cos, sin = (t.to(x.dtype) for t in turn)
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], -1)


class Attention(nn.Module):
    """Self-attention of tokens (B, N, D), global, or within bands of longitude.

    Args:
        size: D.
        heads: number of heads; D / heads is a multiple of 4.
    """

    def __init__(self, size: int, heads: int) -> None:
        super().__init__()
        if size % heads or size // heads % 4:
            raise GapzooError(f"{size} features in {heads} heads; each needs a multiple of 4")
        self.heads = heads
        self.qkv, self.out = nn.Linear(size, 3 * size), nn.Linear(size, size)

    def forward(
        self, x: Tensor, turn: tuple[Tensor, Tensor], bands: tuple[int, int, int]
    ) -> Tensor:
        """Attend; ``bands`` is (rows, columns, columns of a band)."""
        batch, count, size = x.shape
        qkv = self.qkv(x).reshape(batch, count, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        q, k, v = rotate(qkv[0], turn), rotate(qkv[1], turn), qkv[2]
        q, k, v = (_to_bands(t, bands) for t in (q, k, v))
        y = _from_bands(F.scaled_dot_product_attention(q, k, v), bands)
        return self.out(y.transpose(1, 2).reshape(batch, count, size))


def _to_bands(x: Tensor, bands: tuple[int, int, int]) -> Tensor:
    rows, columns, width = bands
    if width == columns:
        return x
    x = x.unflatten(2, (rows, columns // width, width)).transpose(2, 3)
    return x.flatten(3, 4).contiguous()


def _from_bands(x: Tensor, bands: tuple[int, int, int]) -> Tensor:
    rows, columns, width = bands
    if width == columns:
        return x
    return x.unflatten(3, (rows, width)).transpose(2, 3).flatten(2, 4)


class Block(nn.Module):
    """Attention and a position-wise network, both modulated by the embedding (B, E)."""

    def __init__(self, size: int, heads: int, embedding: int, mlp: nn.Module, drop: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(size, elementwise_affine=False)
        self.attention, self.mlp, self.drop = Attention(size, heads), mlp, DropPath(drop)
        self.modulation = zero_init(nn.Linear(embedding, 6 * size))

    def forward(
        self, x: Tensor, e: Tensor, turn: tuple[Tensor, Tensor], bands: tuple[int, int, int]
    ) -> Tensor:
        """(B, N, D) to the same."""
        s1, b1, g1, s2, b2, g2 = self.modulation(e)[:, None].to(x.dtype).chunk(6, -1)
        h = torch.addcmul(b1, self.norm(x), 1 + s1)
        x = x + g1 * self.drop(self.attention(h, turn, bands))
        h = torch.addcmul(b2, self.norm(x), 1 + s2)
        return x + g2 * self.drop(self.mlp(h))


class Transformer(Backbone):
    """The network.

    Args:
        channels, cond_channels: see :class:`Backbone`.
        patch: P, points along each side of a patch.
        size: D, features of a token.
        depth: blocks.
        heads: heads of attention.
        width: channels of the convolutions on the full grid.
        band: columns of patches that attend to each other, all rows of them; every other block's
            bands lie half a band further. None is global attention.
        embedding: E, size of the noise level's embedding.
        drop: share of samples that skip a branch of a block in training.
    """

    def __init__(
        self,
        *,
        channels: int,
        cond_channels: int = 0,
        patch: int = 4,
        size: int = 256,
        depth: int = 8,
        heads: int = 4,
        width: int = 64,
        band: int | None = None,
        embedding: int = 192,
        drop: float = 0.0,
    ) -> None:
        multiple = patch * (band or 1)
        super().__init__(channels=channels, cond_channels=cond_channels, multiple=multiple)
        if band is not None and (band < 2 or band % 2):
            raise GapzooError(f"bands of {band} patches; give an even number, or null for global")
        self.patch, self.size, self.heads, self.band = patch, size, heads, band
        self.embed = ScalarEmbedding(embedding)
        self.stem = SphereConv(self.input_channels, width)
        self.tokenise = nn.Conv2d(width, size, patch, stride=patch)
        self.blocks = nn.ModuleList(
            Block(size, heads, embedding, self.position_wise(layer), drop) for layer in range(depth)
        )
        self.norm = nn.LayerNorm(size)
        self.detokenise = nn.ConvTranspose2d(size, width, patch, stride=patch)
        self.head = zero_init(SphereConv(width, channels))
        self.to(memory_format=torch.channels_last)

    def position_wise(self, layer: int) -> nn.Module:
        """The position-wise network of a block: (B, N, D) to the same."""
        return Mlp(self.size, 4 * self.size)

    def network(self, x: Tensor, c_noise: Tensor) -> Tensor:
        """See :meth:`Backbone.network`."""
        e = F.silu(self.embed(c_noise))
        fine = self.stem(x)
        tokens = self.tokenise(fine)
        rows, columns = tokens.shape[-2:]
        x = tokens.flatten(2).transpose(1, 2)
        turn = rotations(rows, columns, self.size // self.heads, x.device)
        bands = (rows, columns, self.band or columns)
        for number, block in enumerate(self.blocks):
            x = self._shifted(block, x, e, turn, bands) if number % 2 else block(x, e, turn, bands)
        tokens = self.norm(x).transpose(1, 2).unflatten(2, (rows, columns))
        return self.head(F.silu(fine + self.detokenise(tokens)))

    def _shifted(
        self,
        block: nn.Module,
        x: Tensor,
        e: Tensor,
        turn: tuple[Tensor, Tensor],
        bands: tuple[int, int, int],
    ) -> Tensor:
        """Apply a block with the bands half a band further; turns are relative, so they stay."""
        if self.band is None:
            return block(x, e, turn, bands)
        shape, half = bands[:2], self.band // 2
        x = x.unflatten(1, shape).roll(-half, 2).flatten(1, 2)
        return block(x, e, turn, bands).unflatten(1, shape).roll(half, 2).flatten(1, 2)


@DENOISERS.register("transformer_small")
def transformer_small(channels: int, cond_channels: int = 0, **overrides: Any) -> Transformer:
    """9 M parameters, for the 64 x 32 world on one CPU core."""
    return Transformer(channels=channels, cond_channels=cond_channels, **overrides)


@DENOISERS.register("transformer_base")
def transformer_base(channels: int, cond_channels: int = 0, **overrides: Any) -> Transformer:
    """For an hour on a GPU."""
    sizes: dict[str, Any] = {"patch": 2, "size": 384, "depth": 10, "heads": 6, "width": 96}
    return Transformer(channels=channels, cond_channels=cond_channels, **(sizes | overrides))


@DENOISERS.register("transformer_large")
def transformer_large(channels: int, cond_channels: int = 0, **overrides: Any) -> Transformer:
    """For several GPUs."""
    sizes: dict[str, Any] = {"patch": 2, "size": 640, "depth": 16, "heads": 10, "width": 128}
    sizes |= {"embedding": 256, "drop": 0.1}
    return Transformer(channels=channels, cond_channels=cond_channels, **(sizes | overrides))
