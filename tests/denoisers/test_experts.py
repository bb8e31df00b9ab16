"""Sparse experts against a sum over all of them; router losses."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F

from gapzoo.core import GapzooError
from gapzoo.denoisers.experts import SparseExperts, grouped, looped
from gapzoo.denoisers.mixture import LevelExperts, Mixture

TINY = {"patch": 2, "size": 16, "depth": 2, "heads": 2, "width": 8, "embedding": 16}


def normal(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def layer():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return SparseExperts(8, 12, experts=5, active=2)


def dense(layer: SparseExperts, x: torch.Tensor) -> torch.Tensor:
    """Every expert for every token, weighted by zero where it was not chosen."""
    share = F.linear(x, layer.router.weight).softmax(-1)
    kept = share.topk(layer.active, -1)
    weight = torch.zeros_like(share).scatter(-1, kept.indices, kept.values)
    weight = weight / weight.sum(-1, keepdim=True)
    each = torch.einsum("bnd,edh->bneh", x, layer.inward)
    each = torch.einsum("bneh,ehd->bned", F.gelu(each), layer.outward)
    return (each * weight[..., None]).sum(2)


def test_output_and_gradients_equal_the_dense_sum(layer):
    x = normal(1, 3, 7, 8).requires_grad_()
    parameters = [x, *layer.parameters()]
    out, expected = layer(x), dense(layer, x)
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-6)
    weight = normal(2, 3, 7, 8)
    left = torch.autograd.grad((out * weight).sum(), parameters)
    right = torch.autograd.grad((expected * weight).sum(), parameters)
    for a, b in zip(left, right, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_the_grouped_product_equals_the_loop():
    if not hasattr(F, "grouped_mm"):
        pytest.skip("this torch has no grouped products")
    x, weight = normal(3, 10, 16), normal(4, 3, 16, 8)
    counts = torch.tensor([4, 0, 6])
    torch.testing.assert_close(grouped(x, weight, counts), looped(x, weight, counts))


def test_balance_is_one_for_even_use_and_the_number_of_experts_for_one(layer):
    layer.active = 1
    with torch.no_grad():
        layer.router.weight.copy_(10 * torch.eye(5, 8))
    layer(torch.eye(5, 8)[None] * 10)
    assert layer.balance.item() == pytest.approx(1.0)
    assert layer.use.tolist() == pytest.approx([0.2] * 5)
    layer(torch.eye(5, 8)[None, :1].expand(1, 6, 8) * 10)
    assert layer.balance.item() == pytest.approx(5.0)
    assert layer.z.item() == pytest.approx(100.0**2)
    with torch.no_grad():
        layer.router.weight.zero_()
    layer(normal(5, 1, 4, 8))
    assert layer.z.item() == pytest.approx(math.log(5) ** 2)


def test_training_the_balance_alone_evens_out_a_bad_router():
    """From a router that sends nearly all tokens to one expert, each gets its share again."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        layer = SparseExperts(8, 4, experts=4, active=1)
    with torch.no_grad():
        layer.router.weight[0] += 1.0
    x = normal(6, 1, 512, 8) + 1.0
    layer(x)
    assert layer.use[0] > 0.9
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.03)
    for _ in range(100):
        optimizer.zero_grad()
        layer(x)
        layer.balance.backward()
        optimizer.step()
    assert layer.use.min() > 0.1


def test_a_network_reports_its_experts_and_can_be_copied_after_a_pass():
    network = Mixture(channels=1, experts=4, active=2, **TINY)
    network(normal(7, 2, 1, 8, 16), torch.zeros(2))
    assert network.expert_use().shape == (1, 4)
    assert network.expert_use().sum().item() == pytest.approx(1.0)
    balance, z = network.sparse[0].balance, network.sparse[0].z
    assert network.aux_loss().item() == pytest.approx((0.01 * balance + 0.001 * z).item())
    assert not copy.deepcopy(network).sparse[0].balance.requires_grad


def test_a_mixture_sends_each_noise_level_to_its_own_position_wise_network():
    """Below r = 0.5 the first, above it the second; alone as in a mixed batch, and none is idle."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Mixture(channels=1, edges=(0.5,), experts=2, **TINY).eval()
        for p in network.parameters():
            if not p.any():
                torch.nn.init.normal_(p, std=0.1)
    first, second = next(m for m in network.modules() if isinstance(m, LevelExperts)).networks
    x, low, high = normal(8, 2, 1, 4, 8), math.log(0.2) / 4, math.log(2.0) / 4
    with torch.no_grad():
        before = network(x, torch.tensor([high, low]))
        torch.testing.assert_close(network(x[1:], torch.tensor([low])), before[1:])
        second.fc1.weight.zero_()
        after = network(x, torch.tensor([high, low]))
    assert torch.equal(before[1], after[1]) and not torch.allclose(before[0], after[0])
    network(x, torch.tensor([low, low])).sum().backward()
    assert second.fc2.weight.grad is None and first.fc2.weight.grad.any()


def test_too_many_active_experts_are_refused():
    with pytest.raises(GapzooError, match="3 active of 2 experts"):
        SparseExperts(4, 4, experts=2, active=3)
