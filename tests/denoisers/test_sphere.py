"""Padding on the sphere against explicit construction, and its derivatives."""

import math

import pytest
import torch

from gapzoo.core import GapzooError
from gapzoo.denoisers.sphere import SphereConv, _pad_whole, pad_sphere


def walk(x: torch.Tensor, h: int, w: int) -> torch.Tensor:
    """x[h, w] by the rules of the sphere, one step at a time."""
    height, width = x.shape[-2:]
    if h < 0:
        return walk(x, -1 - h, w + width // 2)
    if h >= height:
        return walk(x, 2 * height - 1 - h, w + width // 2)
    return x[..., h, w % width]


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (3, 2), (2, 0), (0, 2), (5, 8)])
@pytest.mark.parametrize("last", [False, True])
def test_padding_is_the_walk_over_the_sphere(rows, columns, last):
    x = torch.randn(2, 3, 5, 8, generator=torch.Generator().manual_seed(0))
    x = x.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)
    padded = pad_sphere(x, rows, columns)
    for i, h in enumerate(range(-rows, 5 + rows)):
        for j, w in enumerate(range(-columns, 8 + columns)):
            assert torch.equal(padded[..., i, j], walk(x, h, w))
    if last and rows and columns:
        assert padded.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (3, 2), (2, 0), (0, 2), (5, 8)])
def test_what_a_compiler_is_given_is_the_same_padding_and_adjoint(rows, columns):
    x = torch.randn(2, 3, 5, 8, generator=torch.Generator().manual_seed(0), requires_grad=True)
    padded, whole = pad_sphere(x, rows, columns), _pad_whole(x, rows, columns)
    assert torch.equal(padded, whole)
    g = torch.randn(padded.shape, generator=torch.Generator().manual_seed(1))
    grads = [torch.autograd.grad(y, x, g)[0] for y in (padded, whole)]
    torch.testing.assert_close(*grads)


def test_a_smooth_field_goes_on_smoothly_over_the_pole():
    """x, y, z of the unit sphere are scalars: beyond the pole they have their analytic values."""
    height, width = 16, 32
    lat = (torch.arange(-2, height + 2, dtype=torch.float64) + 0.5) / height * math.pi - math.pi / 2
    lon = torch.arange(-2, width + 2, dtype=torch.float64) / width * 2 * math.pi
    xyz = torch.stack(
        [
            lat.cos()[:, None] * lon.cos(),
            lat.cos()[:, None] * lon.sin(),
            lat.sin()[:, None].expand(-1, len(lon)),
        ]
    )
    assert torch.allclose(pad_sphere(xyz[:, 2:-2, 2:-2], 2, 2), xyz, atol=1e-14)


@pytest.mark.parametrize("shape", [(2, 3, 4, 6), (4, 6)])
def test_derivatives_of_every_kind(shape):
    g = torch.Generator().manual_seed(1)
    x = torch.randn(shape, dtype=torch.float64, generator=g, requires_grad=True)

    def pad(y):
        return pad_sphere(y, 2, 1)

    assert torch.autograd.gradcheck(pad, x, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(pad, x)


def test_adjoint_identity_in_channels_last():
    g = torch.Generator().manual_seed(2)
    x = torch.randn(2, 3, 4, 6, generator=g, dtype=torch.float64)
    x = x.contiguous(memory_format=torch.channels_last).requires_grad_()
    y = torch.randn(2, 3, 8, 10, generator=g, dtype=torch.float64)
    padded = pad_sphere(x, 2, 2)
    (back,) = torch.autograd.grad(padded, x, y)
    assert torch.allclose((padded * y).sum(), (x * back).sum(), rtol=1e-12)


def test_vmap_is_the_batch():
    x = torch.randn(3, 2, 4, 6, generator=torch.Generator().manual_seed(3))
    mapped = torch.func.vmap(lambda y: pad_sphere(y, 1, 1))(x)
    assert torch.equal(mapped, pad_sphere(x, 1, 1))


def test_convolution_of_one_point_sees_its_neighbours_across_the_pole():
    conv = SphereConv(1, 1)
    with torch.no_grad():
        conv.weight.fill_(1.0)
        conv.bias.zero_()
    x = torch.zeros(1, 1, 4, 8)
    x[0, 0, 0, 1] = 1.0
    reached = conv(x)[0, 0].nonzero().tolist()
    across = [[0, 4], [0, 5], [0, 6]]
    near = [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2]]
    assert sorted(reached) == sorted(near + across)


@pytest.mark.parametrize(
    ("shape", "reach", "message"),
    [
        ((1, 1, 4, 7), (1, 1), "even"),
        ((1, 1, 4, 8), (5, 0), "only"),
        ((1, 1, 4, 8), (0, 9), "only"),
    ],
)
def test_refusals(shape, reach, message):
    with pytest.raises(GapzooError, match=message):
        pad_sphere(torch.zeros(shape), *reach)
