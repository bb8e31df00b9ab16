import math

import pytest
import torch

from gapzoo.core import GapzooError, MemberGenerator
from gapzoo.diffusion import (
    SAMPLERS,
    SCHEDULES,
    Denoiser,
    GaussianDenoiser,
    GaussianForecast,
    Posterior,
    Prior,
    RenoisedForecast,
)


class Forced(Denoiser):
    """N(forcing, 1): an exact denoiser whose prior depends on the conditioning."""

    def __init__(self, schedule):
        super().__init__()
        self.schedule = schedule

    def forward(self, x_t, t, cond=None):
        mean = torch.zeros(()) if cond is None else cond.mean(1, keepdim=True)
        alpha, sigma = self.scales(x_t, t)
        return Posterior(mean + alpha / (alpha**2 + sigma**2) * (x_t - alpha * mean))


@pytest.fixture
def prior(linear):
    return Prior(linear.prior(SCHEDULES.build("edm")))


def test_observations_and_forecast_together_are_the_exact_posterior(prior, linear):
    schedule = prior.denoiser.schedule
    forecast = linear.mean - 0.2
    posterior = prior.given(
        observations=linear.constraint(),
        forecast=GaussianForecast(forecast.reshape(1, 8, 1, 1), 0.1),
        iterations=11,
    )
    x_t = torch.randn(5, 8, 1, 1, generator=torch.Generator().manual_seed(0)).double()
    t = schedule.t_of_sigma(torch.tensor([0.01, 0.1, 1.0, 10.0, 70.0]).double())
    expected = linear.exact(schedule, forecast=forecast, error=0.1 * torch.eye(8))(x_t, t).mean
    torch.testing.assert_close(posterior(x_t, t).mean, expected, rtol=1e-4, atol=1e-4)


def test_given_nothing_it_is_the_prior(prior):
    x_t, t = torch.ones(2, 8, 1, 1), torch.tensor(0.3)
    assert torch.equal(prior.given()(x_t, t).mean, prior.denoiser(x_t, t).mean)


@pytest.mark.parametrize("observed", [False, True])
def test_a_renoised_forecast_sets_where_sampling_starts(prior, linear, observed):
    state = torch.arange(8.0).reshape(1, 8, 1, 1)
    posterior = prior.given(
        observations=linear.constraint() if observed else None,
        forecast=RenoisedForecast(state, start_sigma=0.4),
    )
    sampler = SAMPLERS.build("euler", denoiser=posterior, steps=1)
    got = sampler(generator=MemberGenerator(0, 3))
    t = posterior.schedule.t_of_sigma(torch.tensor(0.4))
    x_t = state + 0.4 * MemberGenerator(0, 3).randn((3, 8, 1, 1))
    torch.testing.assert_close(got, posterior(x_t, t).mean, rtol=1e-4, atol=1e-4)


def test_less_noise_keeps_more_of_the_forecast():
    state, schedule = torch.full((1, 1, 1, 1), 3.0), SCHEDULES.build("edm")
    prior = Prior(GaussianDenoiser(torch.zeros(1, 1, 1), 1.0, schedule))
    for level in (0.1, 1.0, 10.0):
        posterior = prior.given(forecast=RenoisedForecast(state, level))
        sampler = SAMPLERS.build("heun", denoiser=posterior, steps=60)
        x = sampler(generator=MemberGenerator(0, 2000))
        keep = 1 / math.sqrt(1 + level**2)
        spread = level * keep
        assert x.mean().item() == pytest.approx(3 * keep, abs=4 * spread / 2000**0.5 + 3e-3)
        assert x.std().item() == pytest.approx(spread, rel=4 / 4000**0.5)


def test_forcing_is_bound_and_reaches_the_denoiser_through_guidance(linear):
    prior = Prior(Forced(SCHEDULES.build("edm")))
    forcing = torch.full((1, 2, 1, 1), 5.0)
    far = torch.tensor(1.0)
    x_t = torch.zeros(3, 8, 1, 1)
    plain = prior.given(forcing=forcing)(x_t, far).mean
    torch.testing.assert_close(plain, torch.full_like(x_t, 5.0), rtol=1e-3, atol=0)
    precise = GaussianForecast(torch.full((1, 8, 1, 1), 7.0), 1.0)
    both = prior.given(forecast=precise, forcing=forcing)(x_t, far).mean
    torch.testing.assert_close(both, torch.full_like(x_t, 6.0), rtol=1e-3, atol=0)
    assert prior.given()(x_t, far).mean.abs().max() < 1e-3


def test_the_mean_under_each_forcing_is_its_own():
    prior = Prior(Forced(SCHEDULES.build("edm")))
    forcing = torch.tensor([5.0, -2.0]).reshape(2, 1, 1, 1).expand(2, 3, 1, 1)
    found = prior.mean(forcing, (8, 1, 1))
    known = torch.tensor([5.0, -2.0]).reshape(2, 1, 1, 1).expand(2, 8, 1, 1)
    torch.testing.assert_close(found, known, rtol=1e-3, atol=0)


def test_methods_and_their_options_are_chosen_by_name(prior, linear):
    x_t, t = torch.ones(2, 8, 1, 1), torch.tensor(0.3)
    means = [
        prior.given(linear.constraint(), guidance=name, **options)(x_t, t).mean
        for name, options in (("mmps", {}), ("sda", {"gamma": 0.1}), ("sda", {"gamma": 1.0}))
    ]
    assert (means[0] - means[1]).abs().max() > 1e-2 and (means[1] - means[2]).abs().max() > 1e-2


STATE = torch.zeros(1, 8, 1, 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"forecast": (RenoisedForecast(STATE, 1.0), GaussianForecast(STATE, 1.0))}, "count twice"),
        (
            {
                "forecast": GaussianForecast(STATE, 1.0),
                "observations": GaussianForecast(STATE, 1.0).constraint(),
            },
            "besides the forecast",
        ),
        ({"forecast": STATE}, "forecast is a Tensor"),
        ({"forecast": RenoisedForecast(STATE, 500.0)}, "above the schedule's highest"),
    ],
)
def test_a_forecast_in_two_forms_or_none_is_refused(arguments, message, prior):
    with pytest.raises(GapzooError, match=message):
        prior.given(**arguments)


def test_unknown_methods_and_options_are_refused(prior, linear):
    with pytest.raises(GapzooError, match="did you mean 'mmps'"):
        prior.given(linear.constraint(), guidance="mmp")
    with pytest.raises(GapzooError, match="unexpected keyword argument 'zeta'"):
        prior.given(linear.constraint(), zeta=1.0)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: RenoisedForecast(STATE / 0, 1.0), "finite"),
        (lambda: RenoisedForecast(STATE, 0.0), "start_sigma is 0"),
        (lambda: GaussianForecast(STATE[0], 1.0), "must be"),
        (lambda: GaussianForecast(STATE, 0.0).constraint(), "error variance is 0"),
    ],
)
def test_bad_forecasts_are_refused(build, message):
    with pytest.raises(GapzooError, match=message):
        build()
