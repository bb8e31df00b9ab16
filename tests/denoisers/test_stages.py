"""Stages: each noise level meets its own network, alone as in a mixed batch, whatever its kind."""

import pytest
import torch
from worlds import expect

from gapzoo.core import GapzooError
from gapzoo.denoisers import DENOISERS
from gapzoo.denoisers.stages import Stages

UNET = {"model": "unet_small", "widths": (8,), "blocks": (1,), "attention": 0, "embedding": 8}
TOKENS = {"model": "transformer_small", "patch": 4, "size": 16, "depth": 2, "heads": 2, "width": 8}
MIXTURE = {**TOKENS, "model": "mixture_small", "patch": 2, "experts": 4, "embedding": 16}


def normal(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def built(*networks: dict, edges: tuple[float, ...] = (0.5,), cond: int = 0) -> Stages:
    """Every weight of which is awake."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = Stages(channels=1, cond_channels=cond, networks=networks, edges=edges)
        for p in made.parameters():
            torch.nn.init.normal_(p, std=0.1)
    return made.eval()


def test_each_noise_level_meets_its_own_network_to_the_bit():
    """A U-Net and a transformer, which pad their grids unlike, as they are alone."""
    network = built(UNET, TOKENS, cond=2)
    x, cond = normal(8, 4, 1, 6, 8), normal(9, 4, 2, 6, 8)
    c_noise = torch.tensor([0.9, 0.1, 0.6, 0.4]).log() / 4
    low, high = network.networks
    with torch.no_grad():
        mixed = network(x, c_noise, cond)
        for owner, rows in ((low, [1, 3]), (high, [0, 2])):
            alone = owner(x[rows], c_noise[rows], cond[rows])
            assert torch.equal(mixed[rows], alone)
            assert torch.equal(network(x[rows], c_noise[rows], cond[rows]), alone)
        assert torch.equal(network(x, c_noise[0]), high(x, c_noise[0]))
    assert not torch.equal(low(x, c_noise), high(x, c_noise))


def test_an_edge_belongs_to_the_network_below_it():
    network = built(UNET, UNET, UNET, edges=(0.5, 4.0))
    x, edge = normal(1, 1, 1, 4, 8), network.get_buffer("edges")
    with torch.no_grad():
        for level, owner in ((edge[0], 0), (edge[0] + 1e-6, 1), (edge[1], 1), (edge[1] + 1e-6, 2)):
            assert torch.equal(network(x, level), network.networks[owner](x, level))


def test_auxiliary_loss_comes_from_the_networks_that_were_visited():
    network = built(UNET, MIXTURE)
    network(normal(9, 1, 1, 8, 16), torch.full((1,), 1.0)).sum().backward()
    assert network.aux_loss().item() == network.networks[1].aux_loss().item() > 0
    network(normal(9, 1, 1, 8, 16), torch.full((1,), -1.0))
    assert network.aux_loss().item() == 0.0


def test_idle_is_what_the_largest_network_leaves():
    network = built(UNET, {**UNET, "widths": (16,)})
    counts = [sum(p.numel() for p in one.parameters()) for one in network.networks]
    assert counts[1] > counts[0] == network.idle_parameters


def test_levels_are_stages_of_one_kind():
    options = {k: v for k, v in UNET.items() if k != "model"}
    network = DENOISERS.build("unet_levels_small", channels=1, edges=(0.1, 1.0), **options)
    assert isinstance(network, Stages) and len(network.networks) == 3


@pytest.mark.parametrize("edges", [(), (2.0, 1.0), (0.0, 1.0), (1.0, 1.0)])
def test_edges_must_ascend(edges):
    with pytest.raises(GapzooError, match="ascending"):
        Stages(channels=1, networks=[UNET] * (len(edges) + 1), edges=edges)


def test_networks_that_do_not_fit_are_refused():
    with expect(GapzooError, "1 networks for 1 edges"):
        Stages(channels=1, networks=[UNET], edges=(1.0,))
    with expect(GapzooError, "'model'"):
        Stages(channels=1, networks=[UNET, {"widths": (8,)}], edges=(1.0,))
    with expect(GapzooError, "no denoiser 'unet_smal'"):
        Stages(channels=1, networks=[UNET, {"model": "unet_smal"}], edges=(1.0,))
