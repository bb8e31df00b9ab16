"""The exponential sampler: exact around the right Gaussian, of order 2 around another one."""

import itertools

import pytest
import torch
from worlds import expect

from gapzoo.core import GapzooError, MemberGenerator
from gapzoo.diffusion import SAMPLERS, SCHEDULES, GaussianDenoiser
from gapzoo.diffusion.covariance import DiagonalCovariance, SpectralCovariance
from gapzoo.diffusion.denoiser import Denoiser, PreconditionedDenoiser
from gapzoo.diffusion.guidance import GaussianConstraint
from gapzoo.diffusion.prior import GaussianForecast, Prior
from gapzoo.diffusion.reference import Reference

VARIANCE = torch.tensor([1e-3, 0.1, 1.0, 30.0, 2000.0]).reshape(1, 1, 5)
MEAN = torch.tensor([0.0, 1.0, -2.0, 3.0, 40.0]).reshape(1, 1, 5)
SCHEDULE = SCHEDULES.build("edm", sigma_min=0.02)


SHAPE = (1, 1, 5)


def draw(denoiser, **options):
    """Four members."""
    sampler = SAMPLERS.build("exponential", denoiser=denoiser, **options)
    return sampler(shape=(4, *SHAPE), generator=MemberGenerator(0, 4))


def noise():
    """What they start from."""
    return MemberGenerator(0, 4).randn((4, *SHAPE))


@pytest.mark.parametrize("schedule", ["edm", "cosine", "flow"])
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_a_gaussian_is_drawn_exactly_in_any_number_of_steps(steps, schedule):
    """Every mode keeps its place in the distribution, from the marginal to the state."""
    denoiser = GaussianDenoiser(MEAN, VARIANCE, SCHEDULES.build(schedule))
    known = MEAN + VARIANCE.sqrt() * noise()
    torch.testing.assert_close(draw(denoiser, steps=steps), known, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("steps", [1, 4])
def test_a_mode_without_variance_stays_at_its_mean(steps):
    variance = torch.where(torch.arange(5) == 2, 0.0, VARIANCE)
    drawn = draw(GaussianDenoiser(MEAN, variance, SCHEDULE), steps=steps)
    assert torch.isfinite(drawn).all()
    torch.testing.assert_close(drawn[..., 2], (MEAN + 0 * drawn)[..., 2], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("highest", [0.1, 1.5, 70.0])
def test_wherever_it_starts_the_gaussian_is_the_same(highest):
    denoiser = GaussianDenoiser(MEAN, VARIANCE, SCHEDULE)
    known = MEAN + VARIANCE.sqrt() * noise()
    drawn = draw(denoiser, steps=2, highest=highest)
    torch.testing.assert_close(drawn, known, rtol=1e-3, atol=1e-3)


class Elsewhere(GaussianDenoiser):
    """A Gaussian next to one with half of its variances and no mean."""

    def reference(self) -> Reference:
        return Reference(torch.zeros(()), DiagonalCovariance(VARIANCE / 2))


def error(steps: int) -> torch.Tensor:
    """Of each mode at the schedule's lowest level, in standard deviations."""
    denoiser = Elsewhere(MEAN, VARIANCE, SCHEDULE)
    sampler = SAMPLERS.build("exponential", denoiser=denoiser, steps=steps)
    times, z = SCHEDULE.times(steps).float(), noise()
    start, end = (VARIANCE + SCHEDULE(t)[1] ** 2 for t in (times[0], times[-2]))
    x = MEAN + start.sqrt() * z
    for t, s in itertools.pairwise(times[:-1]):
        x = sampler.step(x, t, s, MemberGenerator(0, 4))
    return ((x - MEAN - end.sqrt() * z) / VARIANCE.sqrt()).abs().amax((0, 1, 2))


def test_around_another_gaussian_it_is_of_order_2():
    """Of modes above the lowest noise level."""
    ratio = error(100)[1:4] / error(200)[1:4]
    torch.testing.assert_close(ratio, torch.full((3,), 4.0), rtol=0.2, atol=0)


def spectral(height=3, width=8, seed=1):
    g = torch.Generator().manual_seed(seed)
    return SpectralCovariance(0.1 + torch.rand(2, height, width // 2 + 1, generator=g))


def dense(covariance, shape) -> torch.Tensor:
    """(N,N) matrix of an operator."""
    eye = torch.eye(torch.Size(shape).numel()).reshape(-1, *shape)
    return covariance.apply(eye).flatten(1)


def test_the_reference_under_a_forecast_is_the_posterior():
    """Against the dense formulas, and one step draws from it."""
    shape, own, wrong = (2, 3, 8), spectral(), spectral(seed=2)
    prior = Prior(GaussianDenoiser(torch.zeros(()), own, SCHEDULE))
    f = torch.randn(1, *shape, generator=torch.Generator().manual_seed(3))
    posterior = prior.given(forecast=GaussianForecast(f, wrong))
    found = posterior.reference()
    prior_matrix, error_matrix = dense(own, shape), dense(wrong, shape)
    gain = prior_matrix @ torch.linalg.inv(prior_matrix + error_matrix)
    known = (f.flatten(1) @ gain.T).reshape(f.shape)
    torch.testing.assert_close(found.mean, known, rtol=1e-4, atol=1e-5)
    left = prior_matrix - gain @ prior_matrix
    torch.testing.assert_close(dense(found.covariance, shape), left, rtol=1e-3, atol=1e-5)
    assert found.complete
    sampler = SAMPLERS.build("exponential", denoiser=posterior, steps=1)
    drawn = sampler(shape=(3, *shape), generator=MemberGenerator(0, 3))
    z = MemberGenerator(0, 3).randn((3, *shape))
    torch.testing.assert_close(drawn, known + found.covariance.sample(z), rtol=1e-3, atol=2e-3)


def test_under_observations_large_scales_start_around_their_mean():
    """A mode thrice the first noise level, observed well: the start is around E[x | y], not 0."""
    wide = GaussianDenoiser(
        torch.zeros(1, 1, 1), torch.tensor(9 * 80.0**2).reshape(1, 1, 1), SCHEDULE
    )
    seen = GaussianConstraint(lambda x: x, torch.full((1, 1, 1, 1), 300.0), 1.0)
    t, z = torch.ones(()), torch.randn(4000, 1, 1, 1, generator=torch.Generator().manual_seed(0))
    begun = Prior(wide).given(observations=seen).begin(z, t)
    torch.testing.assert_close(begun, 300 + 80 * z, rtol=0, atol=0.5)
    narrow = Prior(GaussianDenoiser(torch.zeros(1, 1, 1), 1.0, SCHEDULE)).given(observations=seen)
    torch.testing.assert_close(narrow.begin(z, t), 80 * z)


class Nameless(Denoiser):
    """Knows no reference."""

    schedule = SCHEDULE

    def forward(self, x_t, t, **cond):
        raise AssertionError


def test_what_it_cannot_start_from_is_refused():
    prior = Prior(GaussianDenoiser(MEAN, VARIANCE, SCHEDULE))
    seen = GaussianConstraint(lambda x: x[..., :2], torch.zeros(1, 1, 1, 2), 1.0)
    posterior = prior.given(observations=seen)
    assert not posterior.reference().complete
    with expect(GapzooError, "'highest' 1", "observations"):
        draw(posterior, highest=1.0)
    with expect(GapzooError, "'highest' 1000"):
        draw(prior.denoiser, highest=1000.0)
    with expect(GapzooError, "needs a Gaussian"):
        draw(Nameless())
    other = prior.given(forecast=GaussianForecast(torch.zeros(1, *SHAPE), spectral(1, 5)))
    assert not other.reference().complete


def test_a_network_without_climatology_is_next_to_white_noise():
    """A network that returns zero is exact for it; forcing bound to it changes nothing."""
    zero = torch.nn.Module()
    zero.forward = lambda x, c_noise, cond=None: torch.zeros_like(x)
    denoiser = PreconditionedDenoiser(zero, SCHEDULE, sigma_data=3.0)
    bound = Prior(denoiser).given(forcing=torch.ones(1, 1, 1, 5))
    drawn = draw(bound, steps=3)
    torch.testing.assert_close(drawn, 3 * noise(), rtol=5e-3, atol=5e-3)
