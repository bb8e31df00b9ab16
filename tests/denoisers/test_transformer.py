"""Rotations that know the sphere, and bands that are masked global attention."""

import pytest
import torch
import torch.nn.functional as F

from gapzoo.core import GapzooError
from gapzoo.denoisers.transformer import Attention, Transformer, rotate, rotations

ROWS, COLUMNS, HEAD = 4, 8, 16


def normal(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_products_depend_on_differences_of_longitude_alone_and_are_periodic():
    """The same query and key everywhere: the product is circulant in longitude."""
    turn = rotations(ROWS, COLUMNS, HEAD, torch.device("cpu"))
    q, k = (normal(s, HEAD).expand(ROWS * COLUMNS, HEAD) for s in (1, 2))
    scores = (rotate(q, turn) @ rotate(k, turn).T).reshape(ROWS, COLUMNS, ROWS, COLUMNS)
    turned = scores.roll((3, 3), (1, 3))
    torch.testing.assert_close(turned, scores, rtol=0, atol=1e-5)
    along = scores[0, 0, 0]
    assert (along - along[0]).abs().max() > 0.1
    assert (scores[0, 0, :, 0] - scores[0, 0, 0, 0]).abs().max() > 0.1


def test_rotation_keeps_lengths():
    turn = rotations(ROWS, COLUMNS, HEAD, torch.device("cpu"))
    x = normal(3, 2, ROWS * COLUMNS, HEAD)
    torch.testing.assert_close(rotate(x, turn).norm(dim=-1), x.norm(dim=-1), rtol=1e-6, atol=0)


def test_bands_equal_masked_global_attention():
    layer = Attention(32, 2).double()
    turn = rotations(ROWS, COLUMNS, HEAD, torch.device("cpu"))
    x = normal(4, 2, ROWS * COLUMNS, 32)
    band = (torch.arange(COLUMNS) // 4).repeat(ROWS)
    qkv = layer.qkv(x).reshape(2, -1, 3, 2, HEAD).permute(2, 0, 3, 1, 4)
    masked = F.scaled_dot_product_attention(
        rotate(qkv[0], turn), rotate(qkv[1], turn), qkv[2], band[:, None] == band
    )
    expected = layer.out(masked.transpose(1, 2).reshape(x.shape))
    torch.testing.assert_close(layer(x, turn, (ROWS, COLUMNS, 4)), expected)


def test_a_banded_network_is_equivariant_to_turns_by_half_a_band_twice():
    options = {"patch": 2, "size": 32, "depth": 4, "heads": 2, "width": 8, "band": 4}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Transformer(channels=2, embedding=16, **options).eval()
        for p in network.parameters():
            torch.nn.init.normal_(p, std=0.1)
    assert network.multiple == 8
    x, c = normal(5, 1, 2, 8, 32).float(), torch.zeros(1)
    turned = network(x.roll(8, -1), c).roll(-8, -1)
    torch.testing.assert_close(turned, network(x, c), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"band": 3}, "bands of 3"), ({"size": 30, "heads": 4}, "30 features in 4 heads")],
)
def test_refusals(options, message):
    with pytest.raises(GapzooError, match=message):
        Transformer(channels=1, **options)
