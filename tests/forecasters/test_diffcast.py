"""DiffCast: exact where the change is white noise; learns a spread; one member on any batch."""

import math

import lightning
import pandas as pd
import pytest
import torch
from models import TINY, shake
from torch.utils.data import DataLoader
from worlds import expect, toy_archive

from gapzoo.core import GapzooError, MemberGenerator
from gapzoo.data.module import world_of
from gapzoo.forecasters import FORECASTERS, NETWORKS
from gapzoo.training import DiffCast, Optimisation

C, H, W = 2, 8, 16
CHANGE = math.sqrt(0.2**2 + 0.6**2)
TIME = pd.Timestamp("1980-03-01")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return world_of(toy_archive(tmp_path_factory.mktemp("diffcast") / "toy.zarr"))


def module(**options) -> DiffCast:
    arguments = {"channels": C, "architecture": {**TINY, "steps": 32}, "precision": "fp32"}
    arguments |= options
    return DiffCast(change=torch.full((C,), CHANGE), **arguments)


def network(world, **options):
    sizes = {"channels": len(world.channels), "cond_channels": world.cond_channels}
    return NETWORKS.build("diffcast_small", **sizes, **TINY, **options)


def forecaster(world):
    return FORECASTERS.build("diffcast", world=world, network=shake(network(world)))


def batch(seed: int, size: int) -> dict[str, torch.Tensor]:
    """x' = 0.8 x + 0.6 e, e white: a standard deviation of 0.6 and no correlation."""
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(size, C, H, W, generator=g)
    e = torch.randn(size, C, H, W, generator=g)
    return {"state": x, "target": 0.8 * x + 0.6 * e, "hours": torch.full((size,), 6.0)}


def test_a_new_network_adds_the_noise_itself(world):
    """It returns zero, so its change is N(0, 1), which the flow carries z to; its mean is zero."""
    new, x = network(world, steps=64).eval(), torch.randn(3, *world.shape)
    new.set_scale(torch.tensor([0.1, 0.2, 0.4]))
    z, day = torch.randn(3, *world.shape), torch.full((3,), 24.0)
    with torch.no_grad():
        drawn = (new(x, day, None, z) - x) / new.spread(day)
        torch.testing.assert_close(drawn, z, rtol=0.02, atol=0.02)
        torch.testing.assert_close(new(x, day), x)


def test_the_loss_of_white_changes_is_one_before_training():
    """At every noise level, by the weights of the loss."""
    new, g = module(), torch.Generator().manual_seed(0)
    x = torch.randn(400, C, H, W, generator=g)
    target = x + CHANGE * torch.randn(x.shape, generator=g)
    data = {"state": x, "target": target, "hours": torch.full((400,), 6.0)}
    value = new.loss(new.network, data, *new.noise(data, "validate", 0))
    for low, high in ((0.0, 0.3), (0.3, 1.5), (1.5, 1e3)):
        some = (value.ratio >= low) & (value.ratio < high)
        assert some.sum() > 30
        assert value.per_sample[some].mean() == pytest.approx(1.0, abs=0.05)


def test_every_parameter_gets_a_gradient():
    new, data = module(), batch(0, 4)
    shake(new.network).requires_grad_(True)
    new.loss(new.network, data, *new.noise(data, "validate", 0)).loss.backward()
    idle = [n for n, p in new.network.named_parameters() if p.grad is None or not p.grad.any()]
    assert idle == []


def test_it_learns_a_stochastic_map():
    """Before it is trained the mean is x itself, which is 0.2 away."""
    trained = module(optimisation=Optimisation(peak=1e-2, warmup=20, decay=0.98))
    loop = lightning.Trainer(
        max_steps=400, logger=False, enable_progress_bar=False, enable_checkpointing=False,
        enable_model_summary=False, accelerator="cpu", gradient_clip_val=1.0,
    )  # fmt: skip
    loop.fit(trained, DataLoader([batch(s, 16) for s in range(1, 401)], batch_size=None))
    x, members = batch(0, 1)["state"], 200
    z = torch.randn(members, C, H, W, generator=torch.Generator().manual_seed(9))
    with torch.no_grad():
        found = trained(x.repeat(members, 1, 1, 1), torch.full((members,), 6.0), None, z)
        mean = trained(x, torch.full((1,), 6.0))
    assert found.std(0).mean() == pytest.approx(0.6, rel=0.06)
    assert (found.mean(0) - 0.8 * x[0]).square().mean().sqrt() < 0.1
    assert (mean[0] - 0.8 * x[0]).square().mean().sqrt() < 0.1


def test_a_member_is_the_same_on_any_batch_size(world):
    model = forecaster(world)
    x = torch.randn(1, *world.shape, generator=torch.Generator().manual_seed(1))
    x = x.repeat(4, 1, 1, 1)
    together = model.step(x, TIME, 48, generator=MemberGenerator(5, 4))
    assert (together[0] - together[1]).abs().max() > 1e-2
    for member in range(4):
        alone = model.step(x[:1], TIME, 48, generator=MemberGenerator(5, [member]))
        torch.testing.assert_close(alone[0], together[member], rtol=1e-4, atol=1e-4)
    parts = MemberGenerator(5, 4).split(2)
    halves = model.steps([x[:2], x[2:]], [TIME, TIME], 48, [None, None], parts)
    torch.testing.assert_close(torch.cat(halves), together, rtol=1e-4, atol=1e-4)


def test_parts_of_a_step_draw_anew_and_no_generator_is_the_mean(world):
    model = forecaster(world)
    x = torch.randn(2, *world.shape, generator=torch.Generator().manual_seed(1))
    whole, stream = model.step(x, TIME, 48, generator=MemberGenerator(5, 2)), MemberGenerator(5, 2)
    first = model.step(x, TIME, 24, generator=stream)
    later = TIME + pd.Timedelta(days=1)
    torch.testing.assert_close(model.step(first, later, 24, generator=stream), whole)
    assert torch.equal(model.step(x, TIME, 24), model.step(x, TIME, 24))
    with expect(GapzooError, "all or none"):
        model.steps([x, x], [TIME, TIME], 24, [None, None], [MemberGenerator(0, 2), None])


def test_networks_that_are_none_are_refused(world):
    with expect(GapzooError, "'convcast_small' has no denoiser"):
        DiffCast("convcast_small", channels=C, architecture=TINY)
    with expect(GapzooError, "0 sampler steps"):
        network(world, steps=0)
