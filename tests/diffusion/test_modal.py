"""States in modes against filters on the grid, and one evaluation in modes against the sampler."""

import pytest
import torch
from test_zonal import SHAPE, sample
from torch import nn
from worlds import expect

from gapzoo.core import GapzooError, MemberGenerator
from gapzoo.core.random import MixedGenerator
from gapzoo.diffusion import SAMPLERS, SCHEDULES, PreconditionedDenoiser, Prior
from gapzoo.diffusion.covariance import DiagonalCovariance
from gapzoo.diffusion.guidance import GaussianConstraint
from gapzoo.diffusion.modes import Blend, analysed, blended, gridded
from gapzoo.diffusion.moments import BINS as MOMENT_BINS
from gapzoo.diffusion.moments import LEVELS, SecondMoments
from gapzoo.diffusion.prior import GaussianForecast, ModalForecast
from gapzoo.diffusion.single import BINS, SingleWeights
from gapzoo.diffusion.zonal import ZonalCovariance

COND = 3
CLOSE = {"rtol": 2e-4, "atol": 2e-4}


@pytest.fixture(scope="module", params=["full", "cut", "one tail"])
def own(request):
    """A covariance with every direction kept, with tails, and with one tail for all."""
    found = ZonalCovariance.fit([sample(400)], threshold=0.0 if request.param == "full" else 1.0)
    if request.param != "one tail":
        return found
    inside = found.eigenvalues[: sum(found.ranks)]
    return ZonalCovariance(found.vectors, torch.cat([inside, torch.tensor([0.3])]), SHAPE)


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def gains(covariance, rows, seed):
    return random(rows, len(covariance.eigenvalues), seed=seed)


def test_gains_and_sums_in_modes_are_filters_and_sums(own):
    one, two, three = random(3, *SHAPE), random(3, *SHAPE, seed=1), random(1, *SHAPE, seed=2)
    first, second = gains(own, 3, 3), gains(own, 1, 4)
    a, b, c = analysed(own, one, two, three)
    found = gridded(0.5 * (a.times(first) - b) + c.times(second), b.times(second))
    filtered = 0.5 * (own.filter(one, lambda v: first) - two) + own.filter(three, lambda v: second)
    torch.testing.assert_close(found[0], filtered)
    torch.testing.assert_close(found[1], own.filter(two, lambda v: second))
    torch.testing.assert_close(c.grid(), three)


def test_gains_one_after_the_other_are_their_product(own):
    state, first, second = random(2, *SHAPE), gains(own, 2, 3), gains(own, 1, 4)
    found = analysed(own, state)[0].times(first).times(second).grid()
    torch.testing.assert_close(found, own.filter(state, lambda v: first * second))


def test_a_total_is_the_sum_of_its_filters(own):
    states = random(2, *SHAPE), random(1, *SHAPE, seed=1)
    each = gains(own, 2, 2), gains(own, 1, 3)[0]
    known = [own.filter(s, lambda v, g=g: g) for s, g in zip(states, each, strict=True)]
    found = Blend(own, tuple(zip(states, each, strict=True))).grid()
    torch.testing.assert_close(found, known[0] + known[1])


def test_sums_to_come_and_states_share_a_pass_and_other_bases_go_by_the_grid(own):
    states = random(2, *SHAPE), random(1, *SHAPE, seed=1), random(2, *SHAPE, seed=2)
    each = gains(own, 2, 2), gains(own, 1, 3)[0]
    blend = Blend(own, tuple(zip(states, each, strict=False)))
    found = [m.grid() for m in blended(own, states[2], blend, states[1])]
    for one, known in zip(found, (states[2], blend.grid(), states[1]), strict=True):
        torch.testing.assert_close(one, known, **CLOSE)
    turned = ZonalCovariance([1j * e for e in own.vectors], own.eigenvalues, own.shape)
    assert not turned.same_basis(own)
    other = Blend(turned, ((states[0], gains(own, 1, 4)[0]),))
    torch.testing.assert_close(blended(own, other)[0].grid(), other.grid(), **CLOSE)


class Network(nn.Module):
    """Nothing linear, at every point."""

    def forward(self, x, c_noise, cond):
        own = torch.tanh(x + cond[:, COND:] + cond[:, :1])
        return own * torch.cos(c_noise)[:, None, None, None] + 0.3 * x.roll(1, -1) ** 2


class Halved(nn.Module):
    """A support that is easily told."""

    def forward(self, x):
        return x / 2


def denoiser(own, shaped=True, moments=True):
    table = 0.05 * random(LEVELS, MOMENT_BINS, seed=5)
    return PreconditionedDenoiser(
        Network(),
        SCHEDULES.build("edm", sigma_min=0.02),
        climatology=own,
        cond_channels=COND,
        shaped=shaped,
        support=Halved(),
        moments=SecondMoments(table) if moments else None,
    )


@pytest.mark.parametrize("shaped", [True, False])
@pytest.mark.parametrize("moments", [True, False])
@pytest.mark.parametrize("learned", [1.0, 0.4, 0.0])
def test_a_denoiser_says_the_same_in_modes(own, shaped, moments, learned):
    net = denoiser(own, shaped, moments).with_learned(learned)
    x, cond, ratio = random(2, *SHAPE), random(1, COND, *SHAPE[1:]), torch.tensor(0.7)
    found = net.denoised(analysed(own, x)[0], ratio, cond).grid()
    t = net.schedule.t_of_sigma(ratio)
    torch.testing.assert_close(found, net(net.schedule(t)[0] * x, t, cond=cond).mean, **CLOSE)


def weights(scale=True):
    table = random(3, BINS, seed=6).abs() + 0.5
    own = random(*SHAPE[:2], seed=7).abs() if scale else torch.ones(1, 1)
    return SingleWeights(table, own)


def posterior(own, shaped=True):
    share = 0.05 + 0.9 * torch.sigmoid(random(len(own.eigenvalues), seed=9))
    error = own.with_eigenvalues(own.eigenvalues * share)
    forecast = GaussianForecast(own.sample(random(3, *SHAPE, seed=8)), error)
    prior = Prior(denoiser(own, shaped))
    return prior.given(forecast=forecast, forcing=random(1, COND, *SHAPE[1:]))


def draw(sampler):
    return sampler(shape=(3, *SHAPE), generator=MemberGenerator(0, 3))


@pytest.mark.parametrize("given", [None, weights(), weights(scale=False)])
@pytest.mark.parametrize("shaped", [True, False])
def test_one_evaluation_in_modes_is_that_of_sampler_and_guidance(own, given, shaped):
    sampler = SAMPLERS.build("single", denoiser=posterior(own, shaped), weights=given)
    assert sampler.at_once is not None
    found = draw(sampler)
    plain = SAMPLERS.build("single", denoiser=posterior(own, shaped), weights=given)
    plain.at_once = None
    torch.testing.assert_close(found, draw(plain), **CLOSE)


@pytest.mark.parametrize("sampler", ["single", "exponential"])
def test_forecast_and_noise_as_sums_to_come_are_those_on_the_grid(own, sampler):
    """In modes, and by the long way, where they are put on the grid."""
    error = own.with_eigenvalues(0.4 * own.eigenvalues)
    states = own.sample(random(3, *SHAPE, seed=8)), random(1, *SHAPE, seed=2)
    blend = Blend(own, tuple(zip(states, (gains(own, 3, 4), gains(own, 1, 5)[0]), strict=True)))
    near, far = (x * torch.ones(len(own.eigenvalues)) for x in (0.8, 0.6))

    def mix(now, before):
        return Blend(own, ((now, near), (before, far)))

    prior, found = Prior(denoiser(own)), {}
    ways = {
        "late": (ModalForecast(blend, error), mix),
        "now": (GaussianForecast(blend.grid(), error), lambda *z: mix(*z).grid()),
    }
    for name, (forecast, own_mix) in ways.items():
        given = prior.given(forecast=forecast, forcing=random(1, COND, *SHAPE[1:]))
        noise = MixedGenerator(MemberGenerator(0, 3), MemberGenerator(1, 3), own_mix)
        drawn = SAMPLERS.build(sampler, denoiser=given, steps=1)
        found[name] = drawn(shape=(3, *SHAPE), generator=noise)
    torch.testing.assert_close(found["late"], found["now"], **CLOSE)


def test_forecasts_without_errors_or_numbers_are_refused(own):
    state, gain = random(1, *SHAPE), torch.ones(len(own.eigenvalues))
    exact = own.with_eigenvalues(torch.zeros_like(own.eigenvalues))
    with expect(GapzooError, "error variance is 0"):
        Prior(denoiser(own)).given(forecast=ModalForecast(Blend(own, ((state, gain),)), exact))
    with expect(GapzooError, "finite"):
        ModalForecast(Blend(own, ((state * torch.nan, gain),)), own)


def test_states_that_are_no_members_are_refused_as_ever(own):
    sampler = SAMPLERS.build("single", denoiser=posterior(own))
    with expect(GapzooError, "for 3 members"):
        sampler(shape=(4, *SHAPE), generator=MemberGenerator(0, 3))
    one = sampler(shape=SHAPE, generator=MemberGenerator(0, 3))
    torch.testing.assert_close(one, draw(SAMPLERS.build("single", denoiser=posterior(own))))


def test_what_is_no_gain_on_modes_goes_the_long_way(own):
    prior, state = Prior(denoiser(own)), random(3, *SHAPE)
    forecast = GaussianForecast(state, own.with_eigenvalues(0.5 * own.eigenvalues))
    white = GaussianForecast(state, DiagonalCovariance(0.5))
    seen = GaussianConstraint(lambda x: x[:, :1], torch.zeros(1, 1, *SHAPE[1:]), 0.1)
    assert prior.given(forecast=forecast).at_once() is not None
    assert prior.given().at_once() is None
    assert prior.given(forecast=forecast, observations=seen).at_once() is None
    assert prior.given(forecast=white, guidance="wiener", climatology=own).at_once() is None
    assert prior.given(forecast=forecast, guidance="mmps").at_once() is None
