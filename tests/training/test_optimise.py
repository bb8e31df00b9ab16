"""Learning rate, weight averaging, condition dropout, seeds: known answers."""

import math

import pytest
import torch
from timm.optim import muon
from torch import nn

from gapzoo.core import GapzooError, precision
from gapzoo.training.optimise import (
    Optimisation,
    average,
    drop_condition,
    generator_for,
    seeded,
)


def test_learning_rate_at_its_corners():
    rule = Optimisation(warmup=10, floor=0.1)
    assert rule.factor(0, 0.0) == pytest.approx(0.1)
    assert rule.factor(9, 0.0) == pytest.approx(1.0)
    assert rule.factor(100, 0.5) == pytest.approx(0.1 + 0.9 / 2)
    assert rule.factor(100, 0.25) == pytest.approx(0.1 + 0.9 * (1 + math.sqrt(0.5)) / 2)
    assert rule.factor(1000, 1.0) == rule.factor(1000, 3.0) == pytest.approx(0.1)


def test_weight_decay_spares_biases_and_norms():
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.GroupNorm(1, 2))
    decayed, spared = Optimisation(weight_decay=0.5).build(network).param_groups
    assert [p.ndim for p in decayed["params"]] == [4] and decayed["weight_decay"] == 0.5
    assert [p.ndim for p in spared["params"]] == [1, 1, 1] and spared["weight_decay"] == 0.0


@pytest.mark.parametrize(
    ("field", "value"),
    [("peak", 0.0), ("warmup", -1), ("floor", 1.5), ("weight_decay", -1.0), ("decay", 1.0)],
)
def test_values_out_of_range_are_refused(field, value):
    with pytest.raises(GapzooError, match=field):
        Optimisation(**{field: value})


def test_average_of_a_known_path():
    """With w = n after step n, from w_bar = 0: w_bar = n - b (1 - b^n) / (1 - b)."""
    trained, averaged = nn.Linear(1, 1), nn.Linear(1, 1)
    averaged.requires_grad_(False)
    with torch.no_grad():
        averaged.weight.zero_()
    b, start, steps = 0.5, 1000, 12
    for n in range(1, steps + 1):
        with torch.no_grad():
            trained.weight.fill_(float(n))
        average(averaged, trained, start + n, b)
    assert averaged.weight.item() == pytest.approx(steps - b * (1 - b**steps) / (1 - b))


def test_average_forgets_its_start():
    trained, averaged = nn.Linear(1, 1), nn.Linear(1, 1)
    average(averaged, trained, 1, 0.999)  # b = 1 / 10
    start = averaged.weight.item()
    with torch.no_grad():
        trained.weight.fill_(start + 1.0)
    average(averaged, trained, 2, 0.999)  # b = 2 / 11
    assert averaged.weight.item() == pytest.approx(start + 1 - 2 / 11)


def test_dropped_samples_are_zero_and_the_share_is_kept():
    cond = torch.ones(20000, 1, 1, 1)
    kept = drop_condition(cond, 0.3, generator_for(0, "test")).mean().item()
    assert abs(kept - 0.7) < 4 * math.sqrt(0.3 * 0.7 / 20000)
    two = torch.ones(8, 3, 2, 2)
    dropped = drop_condition(two, 0.5, generator_for(1, "test"))
    assert all(bool(s.all()) or not bool(s.any()) for s in dropped)


def test_seeding_layers_leaves_the_global_stream_alone():
    before = torch.random.get_rng_state()
    with seeded(3, "step", 5):
        first = torch.rand(4)
    assert torch.equal(torch.random.get_rng_state(), before)
    with seeded(3, "step", 5):
        assert torch.equal(torch.rand(4), first)
    with seeded(3, "step", 6):
        assert not torch.equal(torch.rand(4), first)


def test_muon_steps_along_an_orthogonal_matrix_and_leaves_vectors_to_adam():
    """The first step of a kernel has singular values alike, 0.2 sqrt(larger side) of the rate."""
    torch.manual_seed(0)
    network = nn.Conv2d(4, 8, 3)
    before = [p.detach().clone() for p in network.parameters()]
    optimizer = Optimisation(optimizer="muon", peak=0.1, weight_decay=0.0).build(network)
    for parameter in network.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    kernel, bias = (b - p.detach() for b, p in zip(before, network.parameters(), strict=True))
    values = torch.linalg.svdvals(kernel.flatten(1)) / (0.1 * 0.2 * math.sqrt(36))
    assert values.min() > 0.6 and values.max() < 1.3  # five Newton-Schulz iterations, bfloat16
    torch.testing.assert_close(bias, bias.abs().mean() * network.bias.grad.sign())  # NAdamW


def test_muon_in_float32_is_muon_to_the_rounding_of_bfloat16(monkeypatch):
    """And timm's own function is back in its place, after an error too."""
    found, kept = [], muon.zeropower_via_newtonschulz
    for native in (True, False):
        monkeypatch.setattr(precision, "native", lambda _, n=native: n)
        torch.manual_seed(0)
        network = nn.Linear(40, 30)
        optimizer = Optimisation(optimizer="muon", peak=0.1, weight_decay=0.0).build(network)
        network.weight.grad = torch.randn_like(network.weight)
        optimizer.step()
        found.append(network.weight.detach().clone())
        with pytest.raises(ZeroDivisionError):
            optimizer.step(lambda: 1 / 0)
        assert muon.zeropower_via_newtonschulz is kept
    steps = [w - found[0] for w in found]
    size = 0.1 * 0.2 * math.sqrt(40) / math.sqrt(30)  # rms of an orthogonal step
    assert 0 < steps[1].square().mean().sqrt() < 0.05 * size


def test_an_unknown_optimizer_is_refused_by_name():
    with pytest.raises(GapzooError, match="muon"):
        Optimisation(optimizer="mion")
