import pytest
import torch
from torch import nn

from gapzoo.core import GapzooError
from gapzoo.diffusion import SCHEDULES, PreconditionedDenoiser


class Record(nn.Module):
    """Returns a fixed multiple of its input and keeps what it was given."""

    def forward(self, x, c_noise, cond=None):
        self.x, self.c_noise, self.cond = x, c_noise, cond
        return 2.0 * x


@pytest.mark.parametrize("sigma_data", [0.5, 1.0])
@pytest.mark.parametrize("name", SCHEDULES.names())
def test_coefficients_are_those_of_karras_table_1(name, sigma_data):
    denoiser = PreconditionedDenoiser(Record(), SCHEDULES.build(name), sigma_data)
    r = torch.tensor([0.01, 0.3, 7.0], dtype=torch.float64)
    c_skip, c_out, c_in, c_noise = denoiser.coefficients(r)
    d = sigma_data
    torch.testing.assert_close(c_skip, d**2 / (r**2 + d**2))
    torch.testing.assert_close(c_out, r * d / (r**2 + d**2).sqrt())
    torch.testing.assert_close(c_in, (r**2 + d**2) ** -0.5)
    torch.testing.assert_close(c_noise, r.log() / 4)


@pytest.mark.parametrize("name", SCHEDULES.names())
def test_the_network_sees_unit_variance_and_the_skip_is_the_best_linear_guess(name):
    schedule, g = SCHEDULES.build(name), torch.Generator().manual_seed(0)
    backbone = Record()
    denoiser = PreconditionedDenoiser(backbone, schedule)
    x, z = (torch.randn(3, 2, 64, 64, generator=g) for _ in range(2))
    t = schedule.t_of_sigma(torch.tensor([0.05, 1.0, 20.0]))
    alpha, sigma = denoiser.scales(x, t)
    denoiser(alpha * x + sigma * z, t)
    torch.testing.assert_close(backbone.x.var((1, 2, 3)), torch.ones(3), rtol=0.05, atol=0)
    torch.testing.assert_close(backbone.c_noise, torch.tensor([0.05, 1.0, 20.0]).log() / 4)
    c_skip = denoiser.coefficients(sigma / alpha)[0]
    residual = x - c_skip * (x + sigma / alpha * z)
    covariance = (residual * (x + sigma / alpha * z)).mean((1, 2, 3))
    assert (covariance.abs() < 5 * (1 + (sigma / alpha).flatten()) / (2 * 64 * 64) ** 0.5).all()


def test_every_schedule_gives_the_same_mean_at_the_same_ratio():
    x = torch.randn(2, 3, 4, 8, generator=torch.Generator().manual_seed(0))
    means = []
    for name in SCHEDULES.names():
        schedule = SCHEDULES.build(name)
        t = schedule.t_of_sigma(torch.tensor([0.2, 3.0]))
        denoiser = PreconditionedDenoiser(Record(), schedule)
        alpha, _ = denoiser.scales(x, t)
        means.append(denoiser(alpha * x, t).mean)
    for mean in means[1:]:
        torch.testing.assert_close(mean, means[0], rtol=1e-4, atol=1e-5)


def test_time_0_gives_the_state_back_exactly():
    x = torch.randn(2, 3, 4, 8, generator=torch.Generator().manual_seed(0))
    for name in SCHEDULES.names():
        denoiser = PreconditionedDenoiser(Record(), SCHEDULES.build(name))
        assert torch.equal(denoiser(x, torch.tensor(0.0)).mean, x)


def test_conditioning_of_one_is_shared_by_all_members():
    backbone = Record()
    denoiser = PreconditionedDenoiser(backbone, SCHEDULES.build("edm"))
    cond = torch.randn(1, 5, 4, 8, generator=torch.Generator().manual_seed(0))
    denoiser(torch.zeros(3, 2, 4, 8), torch.tensor(0.5), cond=cond)
    assert torch.equal(backbone.cond, cond.repeat(3, 1, 1, 1))


@pytest.mark.parametrize(
    ("capability", "kind"), [("AVX512", torch.bfloat16), ("AVX2", torch.float32)]
)
def test_only_the_network_runs_in_bfloat16_and_only_where_it_is_not_emulated(
    capability, kind, monkeypatch
):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)

    class Convolve(nn.Conv2d):
        def forward(self, x, c_noise, cond=None):
            self.out = super().forward(x)
            return self.out

    backbone = Convolve(2, 2, 3, padding=1)
    denoiser = PreconditionedDenoiser(backbone, SCHEDULES.build("edm"), autocast=torch.bfloat16)
    mean = denoiser(torch.zeros(1, 2, 4, 8), torch.tensor(0.5)).mean
    assert (backbone.out.dtype, mean.dtype) == (kind, torch.float32)


def test_sigma_data_must_be_positive():
    with pytest.raises(GapzooError, match="sigma_data is 0"):
        PreconditionedDenoiser(Record(), SCHEDULES.build("edm"), sigma_data=0.0)
