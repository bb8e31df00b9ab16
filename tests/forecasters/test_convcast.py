"""ConvCast: persistence at first, pure advection after training, leads in parts."""

import lightning
import pytest
import torch
from torch.utils.data import DataLoader

from gapzoo.core import GapzooError
from gapzoo.forecasters import NETWORKS
from gapzoo.training import ConvCast, Optimisation

C, H, W = 2, 8, 16
TINY = {"widths": (16,), "blocks": (1,), "attention": 0, "embedding": 16}


def advect(x: torch.Tensor, hours: torch.Tensor) -> torch.Tensor:
    """Turn the sphere by one column in six hours."""
    turned = [row.roll(int(h) // 6, -1) for row, h in zip(x, hours, strict=True)]
    return torch.stack(turned)


def batch(seed: int, size: int) -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(size, C, H, W, generator=g)
    x = (x + x.roll(1, -1) + x.roll(-1, -1)) / 3**0.5
    hours = torch.tensor([6.0, 12.0]).repeat(size // 2)
    return {"state": x, "target": advect(x, hours), "hours": hours}


def module(**options) -> ConvCast:
    arguments = {"channels": C, "architecture": TINY, "precision": "fp32"} | options
    return ConvCast("convcast_small", change=torch.tensor([0.8, 0.8]), **arguments)


def test_a_new_network_is_persistence_and_its_loss_is_the_change():
    new, data = module(), batch(0, 4)
    forecast = new(data["state"], data["hours"])
    assert torch.equal(forecast, data["state"])
    change = (data["target"] - data["state"]).square().flatten(1).mean(1)
    scale = new.averaged.scale[0].item() * (data["hours"] / 6) ** 0.75
    expected = (change / scale**2).mean()
    torch.testing.assert_close(new.loss(new.averaged, data).loss, expected)


def test_it_learns_advection(tmp_path):
    """Two leads, one network: the error falls to a few hundredths of persistence's."""
    trained = module(optimisation=Optimisation(peak=1e-2, warmup=20, decay=0.98))
    data = [batch(seed, 8) for seed in range(1, 201)]
    loop = lightning.Trainer(
        max_steps=200, logger=False, enable_progress_bar=False, enable_checkpointing=False,
        enable_model_summary=False, accelerator="cpu", gradient_clip_val=1.0,
    )  # fmt: skip
    loop.fit(trained, DataLoader(data, batch_size=None))
    test = batch(0, 32)
    error = (trained(test["state"], test["hours"]) - test["target"]).square().mean()
    persistence = (test["state"] - test["target"]).square().mean()
    assert error < 0.05 * persistence


def test_weights_choose_what_counts():
    data = batch(0, 2)
    area = torch.zeros(H)
    area[0] = 1.0
    new = module(area_weights=area, channel_weights=torch.tensor([1.0, 0.0]))
    change = (data["target"] - data["state"])[:, 0, 0].square().mean(1)
    scale = new.averaged.scale[0].item() * (data["hours"] / 6) ** 0.75
    torch.testing.assert_close(new.loss(new.network, data).loss, (change / scale**2).mean())


def test_the_scale_survives_storage_in_bfloat16():
    change = torch.rand(C, H, W, generator=torch.Generator().manual_seed(3)) + 0.1
    network = NETWORKS.build("convcast_small", channels=C)
    network.set_scale(change)
    root = change.square().mean((1, 2)).sqrt()
    torch.testing.assert_close(network.scale.flatten(), root, rtol=2**-8, atol=0)
    assert torch.equal(network.scale.bfloat16().float(), network.scale)
    with pytest.raises(GapzooError, match="3 channels, expected 2"):
        network.set_scale(torch.ones(3))


@pytest.mark.parametrize("name", NETWORKS.names("*_small"))
def test_longitude_shift_equivariance(name):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = NETWORKS.build(name, channels=C, cond_channels=1).eval()
        for p in network.parameters():
            if not p.any():
                torch.nn.init.normal_(p, std=0.05)
    x = batch(5, 2)["state"].repeat(1, 1, 2, 2)
    cond, hours, shift = x[:, :1].flip(-1), torch.tensor([6.0, 24.0]), network.body.multiple
    turned = network(x.roll(shift, -1), hours, cond.roll(shift, -1)).roll(-shift, -1)
    torch.testing.assert_close(turned, network(x, hours, cond), rtol=1e-4, atol=2e-5)
