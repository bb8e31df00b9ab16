"""Convolutions on a latitude-longitude grid of the sphere.

A field x[h, w] on H rows and W columns, cell-centred in latitude, continues beyond its edges as

    x[h, w + W]  = x[h, w]              longitude is a circle
    x[-1 - h, w] = x[h, w + W/2]        across a pole lies the same row, half a circle away

(and likewise beyond row H - 1). This is on purpose: a step across the pole stays on the sphere,
where zero or repeated rows would put a wall there. It is exact for scalars. The components of a
vector change their sign across the pole; the features of a network have no such meaning, and the
sign is left to its weights. A row that lies on the pole itself is its own mirror.

Both rules are one linear map P with adjoint P^T, written out here because autograd's slicing and
concatenating costs more than the convolution that follows.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from gapzoo.core import GapzooError


def pad_sphere(x: Tensor, rows: int = 1, columns: int = 1) -> Tensor:
    """Continue fields over the poles and around the circle of longitude.

    Args:
        x: (..., H, W) fields, W even.
        rows: rows to add beyond each pole, at most H.
        columns: columns to add at each side, at most W.

    Returns:
        (..., H + 2 rows, W + 2 columns).

    Raises:
        GapzooError: where W is odd, or the padding is wider than the field.
    """
    height, width = x.shape[-2:]
    if width % 2:
        raise GapzooError(f"{width} longitudes; the pole rule needs an even number of them")
    if rows > height or columns > width:
        raise GapzooError(f"padding of ({rows}, {columns}) on a field of only ({height}, {width})")
    if torch.compiler.is_compiling():
        return _pad_whole(x, rows, columns)
    return _PadSphere.apply(x, rows, columns)


def _pad_whole(x: Tensor, rows: int, columns: int) -> Tensor:
    """P x by concatenation, which a compiler fuses with what is around it."""
    height, width = x.shape[-2:]
    north, south = _across(x[..., :rows, :]), _across(x[..., height - rows :, :])
    tall = torch.cat([north, x, south], -2)
    return torch.cat([tall[..., width - columns :], tall, tall[..., :columns]], -1)


class _PadSphere(torch.autograd.Function):
    """P and its adjoint, differentiable any number of times, forward and backward."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, rows: int, columns: int) -> Tensor:
        """P x."""
        return _pad(x, rows, columns)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Remember the widths."""
        _, ctx.rows, ctx.columns = inputs

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        """P^T of the gradient."""
        return _PadSphereAdjoint.apply(grads[0], ctx.rows, ctx.columns), None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        """P of the tangent."""
        return _PadSphere.apply(tangents[0], ctx.rows, ctx.columns)


class _PadSphereAdjoint(_PadSphere):
    """P^T, whose derivative is P again."""

    @staticmethod
    def forward(x: Tensor, rows: int, columns: int) -> Tensor:
        """P^T x."""
        return _pad_adjoint(x, rows, columns)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        """P of the gradient."""
        return _PadSphere.apply(grads[0], ctx.rows, ctx.columns), None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        """P^T of the tangent."""
        return _PadSphereAdjoint.apply(tangents[0], ctx.rows, ctx.columns)


def _pad(x: Tensor, rows: int, columns: int) -> Tensor:
    height, width = x.shape[-2:]
    half, inner = width // 2, slice(columns, columns + width)
    out = _empty(x, height + 2 * rows, width + 2 * columns)
    out[..., rows : rows + height, inner] = x
    for i in range(rows):
        for beyond, row in ((rows - 1 - i, i), (rows + height + i, height - 1 - i)):
            out[..., beyond, columns : columns + half] = x[..., row, half:]
            out[..., beyond, columns + half : columns + width] = x[..., row, :half]
    if columns:
        out[..., :columns] = out[..., width : width + columns]
        out[..., columns + width :] = out[..., columns : 2 * columns]
    return out


def _empty(x: Tensor, height: int, width: int) -> Tensor:
    if x.ndim == 4 and x.stride(1) == 1:  # channels last
        return x.new_empty(x.shape[0], height, width, x.shape[1]).permute(0, 3, 1, 2)
    return x.new_empty(*x.shape[:-2], height, width)


def _across(edge: Tensor) -> Tensor:
    return edge.flip(-2).roll(edge.shape[-1] // 2, -1)


def _pad_adjoint(g: Tensor, rows: int, columns: int) -> Tensor:
    width = g.shape[-1] - 2 * columns
    x = g[..., columns : columns + width].clone(memory_format=torch.preserve_format)
    if columns:
        x[..., width - columns :] += g[..., :columns]
        x[..., :columns] += g[..., columns + width :]
    if not rows:
        return x
    height = x.shape[-2] - 2 * rows
    inner = x[..., rows : rows + height, :]
    inner[..., :rows, :] += _across(x[..., :rows, :])
    inner[..., height - rows :, :] += _across(x[..., rows + height :, :])
    return inner


class SphereConv(nn.Conv2d):
    """A convolution of odd kernel size that keeps the grid, padded by :func:`pad_sphere`.

    (B, C_in, H, W) -> (B, C_out, H, W).
    """

    def __init__(self, inputs: int, outputs: int, size: int = 3, groups: int = 1) -> None:
        super().__init__(inputs, outputs, size, groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        """Pad, then convolve."""
        reach = self.kernel_size[0] // 2
        return super().forward(pad_sphere(x, reach, reach) if reach else x)
