"""Fine-tuning: weights carried by name, frozen parts, low ranks, by what networks put out."""

import pytest
import torch
from worlds import expect, flat_world

from gapzoo.core import GapzooError
from gapzoo.denoisers import DENOISERS
from gapzoo.forecasters.diffcast import DiffCastNetwork
from gapzoo.training import UNetDenoiser
from gapzoo.training.adapt import LowRank, carry, freeze, input_labels, low_rank, merged

TINY = {
    "unet_small": {"widths": (8, 16), "blocks": (1, 1), "attention": 0, "embedding": 16},
    "transformer_small": {"patch": 2, "size": 16, "depth": 2, "heads": 2, "width": 8},
    "mixture_small": {"patch": 2, "size": 16, "depth": 2, "heads": 2, "width": 8, "experts": 3},
    "unet_levels_small": {"widths": (8,), "blocks": (1,), "attention": 0, "embedding": 16},
}
K = 3


def normal(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def build(name: str, channels: int, seed: int = 0) -> torch.nn.Module:
    """A network whose every weight is awake."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = DENOISERS.build(name, channels=channels, cond_channels=K, **TINY[name])
        for p in net.parameters():
            if not p.any():
                torch.nn.init.normal_(p, std=0.1)
    return net.eval()


def labels(*channels: str) -> list[str]:
    return [*channels, "given", "sst", "land", "row sine", "row cosine"]


@pytest.mark.parametrize("name", TINY)
def test_channels_are_carried_by_name(name):
    """In another order, one dropped, one new: as the parent where the dropped one is zero."""
    parent, child = build(name, 3), build(name, 3, seed=1)
    inputs, outputs = (["u", "v", "t"], ["q", "t", "u"]), (["u", "v", "t"], ["q", "t", "u"])
    carry(child, parent.state_dict(), (labels(*inputs[0]), labels(*inputs[1])), outputs)
    x, cond, level = normal(2, 2, 2, 8, 16), normal(3, 2, K, 8, 16), torch.tensor([-0.5, 0.3])
    u, t = x[:, :1], x[:, 1:]
    before = parent(torch.cat([u, torch.zeros_like(u), t], 1), level, cond)
    after = child(torch.cat([normal(4, *u.shape), t, u], 1), level, cond)
    torch.testing.assert_close(after[:, 2], before[:, 0], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(after[:, 1], before[:, 2], rtol=1e-5, atol=1e-6)
    assert not after[:, 0].any(), "a new channel begins at zero"


def test_weights_know_no_grid():
    parent, child = build("transformer_small", 2), build("transformer_small", 2, seed=1)
    names = labels("u", "v")
    carry(child, parent.state_dict(), (names, names), (["u", "v"], ["u", "v"]))
    x, level = normal(5, 1, 2, 12, 24), torch.zeros(1)
    assert torch.equal(child(x, level), parent(x, level))


def test_another_network_is_refused():
    parent, child = build("unet_small", 2), build("transformer_small", 2)
    names, outs = (labels("u", "v"),) * 2, (["u", "v"],) * 2
    with expect(GapzooError, "the parent is another network"):
        carry(child, parent.state_dict(), names, outs)
    with expect(GapzooError, "a layer of 7 channels for 6 of the parent's"):
        carry(parent, parent.state_dict(), (labels("u"), labels("u", "v")), outs)


def test_labels_are_as_many_as_a_stem_reads():
    world = flat_world(3)
    for wiener in (False, True):
        found = input_labels(world, wiener)
        more = len(world.channels) if wiener else 0
        net = DENOISERS.build(
            "unet_small", channels=3, cond_channels=world.cond_channels + more, **TINY["unet_small"]
        )
        assert len(found) == len(set(found)) == net.input_channels == net.stem.weight.shape[1]


def test_labels_of_a_network_of_changes_are_as_many_as_it_reads():
    world = flat_world(3)
    net = DiffCastNetwork(channels=3, cond_channels=world.cond_channels, **TINY["unet_small"])
    found = input_labels(world, change=True)
    assert len(found) == len(set(found)) == net.body.stem.weight.shape[1]


def test_frozen_parts_do_not_move():
    network = build("unet_small", 2)
    freeze(network, ["down.*", "stem.weight"])
    frozen = {n for n, p in network.named_parameters() if not p.requires_grad}
    assert frozen == {n for n in dict(network.named_parameters()) if n.startswith("down.")} | {
        "stem.weight"
    }
    with expect(GapzooError, "no parameter matches 'steam.*'", "stem"):
        freeze(network, ["steam.*"])
    with expect(GapzooError, "every parameter is frozen"):
        freeze(network, ["*"])


@pytest.mark.parametrize("shape", [(4, 6), (4, 3, 3, 3), (2, 4, 6)])
def test_an_update_is_of_its_rank(shape):
    weight = normal(6, *shape)
    update = LowRank(weight, 2)
    assert torch.equal(update(weight), weight), "none at first"
    torch.nn.init.normal_(update.b)
    change = (update(weight) - weight).detach()
    matrices = change if change.ndim == 3 else change.flatten(1)[None]
    assert [int(torch.linalg.matrix_rank(m, rtol=1e-4)) for m in matrices] == [2] * len(matrices)


@pytest.mark.parametrize("name", ["unet_small", "transformer_small", "mixture_small"])
def test_low_rank_updates_train_alone_and_merge(name):
    network, x, level = build(name, 2), normal(7, 2, 2, 8, 16), torch.tensor([-0.5, 0.3])
    before, plain = network(x, level), dict(network.state_dict())
    low_rank(network, 2, ["blocks.*", "down.*"][name == "unet_small" :][:1], thaw=["head.*"])
    torch.testing.assert_close(network(x, level), before)
    moved = {n for n, p in network.named_parameters() if p.requires_grad}
    assert {n for n in moved if "parametrizations" not in n} == {"head.weight", "head.bias"}
    assert any(n.endswith(".b") for n in moved)
    network(x, level).square().mean().backward()
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.requires_grad and parameter.grad is not None:
                parameter.sub_(0.5 * parameter.grad)
    after = network(x, level)
    assert not torch.allclose(after, before, atol=1e-4)
    whole = merged(network)
    assert set(whole.state_dict()) == set(plain), "nothing of the updates is left"
    torch.testing.assert_close(whole(x, level), after)
    assert torch.equal(whole.stem.weight, plain["stem.weight"])


def test_a_module_averages_low_rank_updates_too():
    module = UNetDenoiser(channels=1, architecture=TINY["unet_small"], precision="fp32")
    low_rank(module.live, 1, ["*"])
    module.restart_average()
    names = dict(module.denoiser.named_parameters())
    assert dict(module.averaged.named_parameters()).keys() == names.keys()
    assert not any(p.requires_grad for p in module.averaged.parameters())
    assert module.optimisation.build(module.trained).param_groups[0]["params"]
