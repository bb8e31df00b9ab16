"""Every registered denoiser is tested because it is registered."""

import io

import pytest
import torch

import gapzoo
from gapzoo.core import GapzooError
from gapzoo.denoisers import DENOISERS

C, K, H, W = 5, 3, 16, 32
DISPATCHING = {"mixture", "levels", "stages"}
"""What sends samples where their values say, which the meta device cannot know."""
SMALL = DENOISERS.names("*_small")


def rows(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module", params=SMALL)
def network(request):
    """A network with every zero-initialised weight woken, so that all paths carry signal."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = DENOISERS.build(request.param, channels=C, cond_channels=K)
        for p in net.parameters():
            if not p.any():
                torch.nn.init.normal_(p, std=0.05)
    return net.eval()


@pytest.fixture(scope="module")
def batch():
    return rows(1, 3, C, H, W), torch.tensor([-1.5, 0.0, 1.0]), rows(2, 3, K, H, W)


@pytest.mark.parametrize("name", [n for n in DENOISERS if not set(n.split("_")) & DISPATCHING])
@pytest.mark.parametrize("grid", [(32, 64), (48, 96)])
def test_any_size_takes_any_grid_and_channels(name, grid):
    """On the meta device: shapes and dtypes without the arithmetic."""
    with torch.device("meta"):
        net = DENOISERS.build(name, channels=7, cond_channels=0)
        out = net(torch.empty(2, 7, *grid), torch.empty(2), None)
    assert out.shape == (2, 7, *grid)
    assert out.dtype == torch.float32


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in DENOISERS if n not in SMALL])
def test_large_networks_run(name):
    net = DENOISERS.build(name, channels=C, cond_channels=0)
    assert not net(rows(0, 1, C, H, 2 * W), torch.zeros(1)).any()


@pytest.mark.parametrize("name", SMALL)
def test_a_new_network_returns_zero(name, batch):
    """So that the loss starts at 1 at every noise level and the denoiser at c_skip x."""
    net = DENOISERS.build(name, channels=C, cond_channels=K)
    assert not net(*batch).any()


def test_models_are_listed_by_pattern():
    assert {"mixture_small", "mixture_base", "mixture_large"} <= set(gapzoo.list_models("mixture*"))
    assert set(gapzoo.list_models("*_small")) >= {*SMALL, "convcast_small"}
    families = {"unet", "transformer", "mixture"}
    sizes = {"small", "base", "large"}
    assert {f"{f}_{s}" for f in families for s in sizes} <= set(gapzoo.list_models())
    assert gapzoo.list_models("nothing*") == []


def test_a_sample_leaves_idle_what_gets_no_gradient_from_it(network):
    """Of experts by noise level; sparse ones share a tensor, so that their share is counted."""
    network.zero_grad()
    network(rows(4, 1, C, H, W), torch.tensor([-0.6]), rows(5, 1, K, H, W)).sum().backward()
    sparse = getattr(network, "sparse", [])
    inside = {id(p) for layer in sparse for p in (layer.inward, layer.outward)}
    idle = sum(p.numel() for p in network.parameters() if p.grad is None and id(p) not in inside)
    share = 1 - network.active / network.experts if sparse else 0.0
    stacked = sum(p.numel() for p in network.parameters() if id(p) in inside)
    assert network.idle_parameters == pytest.approx(idle + share * stacked, rel=1e-6)


def test_longitude_shift_equivariance(network, batch):
    x, c, cond = batch
    shift = network.multiple
    turned = network(x.roll(shift, -1), c, cond.roll(shift, -1)).roll(-shift, -1)
    straight = network(x, c, cond)
    assert straight.std() > 0.1
    torch.testing.assert_close(turned, straight, rtol=1e-4, atol=2e-5)


def test_condition_and_noise_level_matter_and_samples_do_not_mix(network, batch):
    x, c, cond = batch
    out = network(x, c, cond)
    assert not torch.allclose(network(x, c, None), out, atol=1e-3)
    assert not torch.allclose(network(x, c + 0.5, cond), out, atol=1e-3)
    torch.testing.assert_close(network(x, c, None), network(x, c, torch.zeros_like(cond)))
    alone = network(x[1:2], c[1:2], cond[1:2])
    torch.testing.assert_close(alone, out[1:2], rtol=1e-4, atol=1e-5)


def test_gradient_reaches_every_parameter(network, batch):
    x, c, cond = batch
    network.zero_grad()
    (network(x, c, cond) * rows(3, 3, C, H, W)).sum().backward()
    aux = getattr(network, "aux_loss", None)
    if aux is not None:
        network.train()(x, c, cond)
        auxiliary = aux()
        if auxiliary.requires_grad:
            auxiliary.backward()
        network.eval()
    dead = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert dead == []


def test_bfloat16_is_close_and_output_stays_float32(network, batch):
    full = network(*batch)
    with torch.autocast("cpu", torch.bfloat16):
        half = network(*batch)
    assert half.dtype == torch.float32
    assert (half - full).std() < 0.05 * full.std()


def test_save_and_load_give_the_identical_output(network, batch, request):
    file = io.BytesIO()
    torch.save(network.state_dict(), file)
    name = request.node.callspec.params["network"]
    other = DENOISERS.build(name, channels=C, cond_channels=K).eval()
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(other(*batch), network(*batch))


def test_rows_that_do_not_divide_are_continued_over_the_poles(network, batch):
    x, c, cond = (t[..., : H - 1, :] if t.ndim == 4 else t for t in batch)
    assert network(x, c, cond).shape == x.shape


def test_refusals(network, batch):
    x, c, cond = batch
    with pytest.raises(GapzooError, match=f"takes \\(B, {C}, H, W\\)"):
        network(x[:, 1:], c, cond)
    with pytest.raises(GapzooError, match="condition of shape"):
        network(x, c, cond[:, 1:])
    if network.multiple > 1:
        with pytest.raises(GapzooError, match=f"multiple of {network.multiple}"):
            network(x[..., 1:], c, cond[..., 1:])
