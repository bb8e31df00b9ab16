import math

import pytest
import torch
from torch import nn

from gapzoo.core import GapzooError
from gapzoo.diffusion import SCHEDULES, DenoisingLoss, PreconditionedDenoiser


class Zero(nn.Module):
    def forward(self, x, c_noise, cond=None):
        return torch.zeros_like(x)


def denoiser(name="edm", sigma_data=1.0):
    return PreconditionedDenoiser(Zero(), SCHEDULES.build(name), sigma_data)


@pytest.mark.parametrize("sigma_data", [1.0, 0.5])
@pytest.mark.parametrize("name", SCHEDULES.names())
def test_a_zero_network_on_independent_data_has_loss_1_at_every_noise_level(name, sigma_data):
    g = torch.Generator().manual_seed(0)
    ratio = torch.logspace(-2.5, 1.9, 12)
    x = sigma_data * torch.randn(12, 8, 64, 64, generator=g)
    noise = torch.randn(x.shape, generator=g)
    loss = DenoisingLoss(sigma_data=sigma_data)
    value = loss.at(denoiser(name, sigma_data), x, noise, ratio)
    four_sigma = 4 * math.sqrt(2 / (8 * 64 * 64))
    torch.testing.assert_close(value.per_sample, torch.ones(12), rtol=0, atol=four_sigma)
    torch.testing.assert_close(value.ratio, ratio, rtol=1e-3, atol=0)


@pytest.mark.parametrize("kind", ["channel_weights", "area_weights", "point_weights"])
def test_weights_of_zero_leave_out_a_part_and_the_rest_counts_fully(kind):
    g = torch.Generator().manual_seed(0)
    x, noise = (torch.randn(2, 4, 4, 8, generator=g) for _ in range(2))
    part = {"channel_weights": (2, ...), "area_weights": (..., 2, slice(None))}
    index = part.get(kind, (2, ...))
    shape = {"point_weights": (4, 4, 8)}.get(kind, (4,))
    weights = torch.zeros(shape)
    weights[2] = 3.0
    ratio = torch.tensor([0.3, 2.0])
    got = DenoisingLoss(**{kind: weights}).at(denoiser(), x, noise, ratio).per_sample
    r = ratio.reshape(2, 1, 1, 1)
    error = (1 + r**2) / r**2 * (x - (x + r * noise) / (1 + r**2)) ** 2
    expected = torch.stack([e[index].mean() for e in error])
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=0)


def test_lognormal_levels_have_the_mean_and_spread_asked_for():
    log_r = DenoisingLoss(mean=-1.2, std=1.2).draw(4096, torch.Generator().manual_seed(0)).log()
    assert log_r.mean().item() == pytest.approx(-1.2, abs=0.01)
    assert log_r.std().item() == pytest.approx(1.2, abs=0.01)


def test_loguniform_levels_fill_the_range_evenly():
    loss = DenoisingLoss("loguniform", low=0.01, high=10.0)
    log_r = loss.draw(1000, torch.Generator().manual_seed(0)).log().sort().values
    even = math.log(0.01) + (torch.arange(1000) + 0.5) / 1000 * math.log(1000)
    torch.testing.assert_close(log_r, even, rtol=0, atol=math.log(1000) / 1000)


def test_single_draws_are_log_normal_too():
    loss, g = DenoisingLoss(mean=0.5, std=0.7), torch.Generator().manual_seed(0)
    log_r = torch.cat([loss.draw(1, g) for _ in range(4000)]).log()
    assert log_r.mean().item() == pytest.approx(0.5, abs=4 * 0.7 / 4000**0.5)
    assert log_r.std().item() == pytest.approx(0.7, abs=4 * 0.7 / 8000**0.5)


def test_the_same_generator_state_gives_the_same_loss_and_gradient_reaches_the_network():
    backbone = nn.Conv2d(2, 2, 3, padding=1)

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = backbone

        def forward(self, x, c_noise, cond=None):
            return self.net(x)

    model = PreconditionedDenoiser(Net(), SCHEDULES.build("edm"))
    x = torch.randn(4, 2, 8, 8, generator=torch.Generator().manual_seed(1))
    values = [DenoisingLoss()(model, x, torch.Generator().manual_seed(7)) for _ in range(2)]
    assert torch.equal(values[0].per_sample, values[1].per_sample)
    assert torch.equal(values[0].loss, values[0].per_sample.mean())
    values[0].loss.backward()
    assert backbone.weight.grad.abs().max() > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"levels": "lognorm"}, "did you mean 'lognormal'"),
        ({"levels": "loguniform", "low": 2.0, "high": 1.0}, "positive and ascending"),
        ({"channel_weights": torch.tensor([1.0, -1.0])}, "channel weights must be finite"),
        ({"area_weights": torch.tensor([float("nan")])}, "area weights must be finite"),
        ({"channel_weights": torch.zeros(2)}, "not all zero"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(GapzooError, match=message):
        DenoisingLoss(**arguments)


def test_weights_of_other_channels_are_refused():
    loss = DenoisingLoss(channel_weights=torch.ones(3))
    with pytest.raises(GapzooError, match=r"\(3, 1, 1\) do not fit states \(2, 4, 8\)"):
        loss(denoiser(), torch.zeros(1, 2, 4, 8), torch.Generator())
