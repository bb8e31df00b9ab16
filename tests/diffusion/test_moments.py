"""Second moments against Gaussians, where what a denoiser lacks is known."""

import pytest
import torch
from worlds import expect

from gapzoo.core import GapzooError, MemberGenerator
from gapzoo.diffusion import SCHEDULES, PreconditionedDenoiser
from gapzoo.diffusion.moments import BINS, LEVELS, SecondMoments
from gapzoo.diffusion.prior import Prior
from gapzoo.diffusion.samplers import SAMPLERS
from gapzoo.diffusion.zonal import ZonalCovariance

C, H, W = 2, 8, 8
MODES = torch.logspace(3.3, -1.0, C * H)
"""Variances of the modes of every wavenumber."""


def covariance() -> ZonalCovariance:
    generator = torch.Generator().manual_seed(0)
    bases = [
        torch.linalg.qr(torch.randn(C * H, C * H, generator=generator))[0]
        for _ in range(W // 2 + 1)
    ]
    values = torch.cat([MODES.repeat(W // 2 + 1), torch.ones(1)])
    return ZonalCovariance(bases, values, (C, H, W))


class Lacking(torch.nn.Module):
    """A network whose output takes a share off the Wiener filter's: its last channel is W x."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share, self.weight = share, torch.nn.Parameter(torch.zeros(()))

    def forward(self, x, c_noise, cond):
        return -self.share * cond[:, -C:]


class Unscaled(PreconditionedDenoiser):
    """Adds the network's output as it is."""

    def error_scale(self, ratio):
        return torch.ones_like(ratio)


def denoiser(share: float) -> PreconditionedDenoiser:
    schedule = SCHEDULES.build("edm", sigma_min=0.02, sigma_max=80.0)
    return Unscaled(Lacking(share), schedule, climatology=covariance(), cond_channels=0).eval()


def states(count: int, seed: int) -> torch.Tensor:
    noise = torch.randn(count, C, H, W, generator=torch.Generator().manual_seed(seed))
    return covariance().filter(noise, lambda b: b.sqrt())


def fitted(share: float) -> SecondMoments:
    batches = [(states(256, seed), None) for seed in range(8)]
    return SecondMoments.fit(denoiser(share), batches, torch.Generator().manual_seed(1))


def variances(made: PreconditionedDenoiser) -> torch.Tensor:
    """Of samples over the data's, in each of the modes."""
    sampler = SAMPLERS.build("heun", denoiser=made, steps=60)
    drawn = sampler(shape=(256, C, H, W), generator=MemberGenerator(3, 256))
    power = covariance().analyse(drawn).abs().square().mean(0)
    return power.unflatten(0, (-1, C * H)).mean(0) / MODES


def test_an_exact_denoiser_lacks_nothing():
    assert fitted(0.0).gains.abs().max() < 0.02


def test_what_is_missing_of_the_wiener_filter_is_found():
    """g = share * snr / (snr + 1), in whatever bins the modes fall."""
    gains = fitted(0.1).gains
    snr = torch.logspace(-7, 11, BINS, base=2.0)  # 1/128 to 2048
    off = (gains - 0.1 * snr / (snr + 1))[5:7, 1:7]  # where every bin has modes
    assert off.abs().max() < 0.01 and off.abs().mean() < 0.004


def test_samples_get_their_variance_back():
    lacking = denoiser(0.05)
    without, within = variances(lacking), variances(lacking.with_moments(fitted(0.05)))
    assert (without < 0.8).all(), "five percent too little at every level"
    torch.testing.assert_close(within, torch.ones(C * H), rtol=0, atol=0.08)


def test_the_denoiser_itself_stays_as_it_is():
    plain = denoiser(0.05)
    changed = plain.with_moments(fitted(0.05))
    x, t = states(2, 0), torch.tensor(0.5)
    assert plain.moments is None and changed.backbone is plain.backbone
    assert not torch.equal(plain(x, t).mean, changed(x, t).mean)
    assert torch.equal(plain(x, t).mean, changed.with_moments(None)(x, t).mean)


def test_a_share_of_what_was_learned_lies_between_the_filter_and_the_network():
    plain = denoiser(0.05).with_moments(fitted(0.1))
    x, t = states(2, 0), torch.tensor(0.5)
    whole, half, none = (plain.with_learned(s)(x, t).mean for s in (1.0, 0.5, 0.0))
    assert torch.equal(whole, plain(x, t).mean)
    alpha, sigma = plain.schedule(t)
    ratio = (sigma / alpha)[None].float()
    filtered = covariance().filter(x / alpha, lambda b, r: b / (b + r**2), ratio)
    torch.testing.assert_close(none, filtered.to(none))
    torch.testing.assert_close(half, (whole + none) / 2)
    with expect(GapzooError, "learned 0.5", "around its climatology"):
        PreconditionedDenoiser(Lacking(0.0), SCHEDULES.build("edm")).with_learned(0.5)


def test_between_the_nodes_the_table_is_bilinear():
    rows, columns = torch.arange(LEVELS)[:, None], torch.arange(BINS)
    moments = SecondMoments((10.0 * rows + columns).float())
    ratio = 0.05 * (80 / 0.05) ** (torch.tensor([[0.0], [2.5], [10.0]]) / 10)
    snr = 2.0 ** (-7 + 2 * torch.tensor([-3.0, 0.0, 4.25, 20.0]))
    found = torch.cat([moments(snr * r**2, r[None]) for r in ratio])
    known = torch.tensor([[0.0], [25.0], [100.0]]) + torch.tensor([0.0, 0.0, 4.25, 9.0])
    torch.testing.assert_close(found, known, rtol=0, atol=2e-3)


def test_they_are_used_where_they_were_measured_and_refused_where_they_were_not():
    prior = Prior(denoiser(0.05))
    with expect(GapzooError, "were not measured", "gapzoo calibrate"):
        prior.given(moments=True)
    moments = fitted(0.05)
    known = Prior(denoiser(0.05), moments)
    x, t = states(2, 0), torch.tensor(0.5)
    asked, plain = (known.given(moments=on)(x, t).mean for on in (True, False))
    assert torch.equal(plain, prior.given()(x, t).mean) and not torch.equal(asked, plain)
    assert torch.equal(asked, known.given()(x, t).mean)
    with expect(GapzooError, "they are (11, 10)"):
        SecondMoments(torch.zeros(3, 4))
    bare = PreconditionedDenoiser(Lacking(0.0), SCHEDULES.build("edm"))
    with expect(GapzooError, "there is none"):
        SecondMoments.fit(bare, [], torch.Generator())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gains_take_the_type_of_what_they_act_on(dtype):
    made = fitted(0.05)(torch.ones(3, dtype=dtype), torch.ones(2, 1, dtype=dtype))
    assert made.shape == (2, 3) and made.dtype == dtype
