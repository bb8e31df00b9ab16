"""MMPS from the last step's solution, and the preconditioner that a prior brings along."""

import pytest
import torch
from torch import nn

from gapzoo.core import MemberGenerator
from gapzoo.diffusion import (
    SAMPLERS,
    SCHEDULES,
    DiagonalCovariance,
    GaussianConstraint,
    GaussianDenoiser,
    GaussianForecast,
    PreconditionedDenoiser,
    Prior,
    RenoisedForecast,
    SpectralCovariance,
)
from gapzoo.diffusion.guidance.mmps import MMPS
from gapzoo.diffusion.guidance.wiener import Wiener
from gapzoo.diffusion.zonal import ZonalCovariance

SIZE, SHAPE = 16, (2, 4, 8)
SCHEDULE = SCHEDULES.build("edm")


class Problem:
    """Prior N(0, C) with a spectrum over four decades, all 16 numbers observed, the posterior."""

    def __init__(self):
        g = torch.Generator().manual_seed(0)
        q = torch.linalg.qr(torch.randn(SIZE, SIZE, generator=g, dtype=torch.float64))[0]
        prior = q @ torch.diag(torch.logspace(1, -3, SIZE, dtype=torch.float64)) @ q.T
        self.prior = GaussianDenoiser(torch.zeros(SIZE, 1, 1), (prior + prior.T) / 2, SCHEDULE)
        a = torch.randn(SIZE, SIZE, generator=g, dtype=torch.float64) / SIZE**0.5
        truth = torch.linalg.cholesky(prior) @ torch.randn(SIZE, generator=g).double()
        y = a @ truth + 0.1 * torch.randn(SIZE, generator=g).double()
        self.constraint = GaussianConstraint(lambda x: x.flatten(1) @ a.T.to(x), y[None], 0.01)
        self.covariance = (prior.inverse() + a.T @ a / 0.01).inverse()
        self.mean = self.covariance @ a.T @ y / 0.01

    def posterior(self, **options):
        return MMPS(self.prior, self.constraint, **options)

    def draw(self, posterior, generator, steps=16):
        sampler = SAMPLERS.build("dpmpp_2m", denoiser=posterior, steps=steps)
        return sampler(generator=generator, shape=(SIZE, 1, 1)).flatten(1)

    def error(self, states):
        """Of the mean, relative to the posterior's spread."""
        return (states.double().mean(0) - self.mean).norm() / self.covariance.trace().sqrt()


@pytest.fixture(scope="module")
def problem():
    return Problem()


def test_one_iteration_a_step_adds_up_over_the_steps(problem, one_stream):
    warm, cold = (
        problem.error(problem.draw(problem.posterior(iterations=1, warm=w), one_stream(0, 1000)))
        for w in (True, False)
    )
    assert warm < 0.5 * cold


def test_with_enough_iterations_the_start_does_not_matter(problem, one_stream):
    warm, cold = (
        problem.draw(problem.posterior(iterations=SIZE, warm=w), one_stream(0, 100))
        for w in (True, False)
    )
    torch.testing.assert_close(warm, cold, rtol=1e-2, atol=1e-2)
    spread = problem.covariance.trace().sqrt()
    assert problem.error(cold) < 4 / 100**0.5 and (warm - cold).norm(dim=1).mean() < 0.01 * spread


def test_a_member_alone_is_that_member_among_many(problem):
    many = problem.draw(problem.posterior(iterations=2), MemberGenerator(3, 6))
    alone = problem.draw(problem.posterior(iterations=2), MemberGenerator(3, [4]))
    torch.testing.assert_close(alone, many[4:5], rtol=1e-3, atol=1e-3)


def test_a_draw_leaves_nothing_to_another(problem):
    """Neither to a fresh posterior nor, as levels fall within a draw alone, to its own next."""
    used = problem.posterior(iterations=1)
    problem.draw(used, MemberGenerator(1, 4))
    fresh = problem.draw(problem.posterior(iterations=1), MemberGenerator(2, 4))
    assert torch.equal(problem.draw(used, MemberGenerator(2, 4)), fresh)


def test_a_start_that_takes_a_member_further_off_is_not_taken(problem):
    """Member 0 starts from its own solution, member 1 from nonsense, which is left."""
    posterior, cold = problem.posterior(iterations=1), problem.posterior(iterations=1, warm=False)
    exact = problem.posterior(iterations=SIZE, solver="cg", warm=False)
    x_t = 2 * torch.randn(2, SIZE, 1, 1, generator=torch.Generator().manual_seed(4)).double()
    t = SCHEDULE.t_of_sigma(torch.tensor(2.0, dtype=torch.float64))
    exact(x_t, t)
    last = exact._last[1].clone()
    last[1] *= -3
    posterior._last = (2.1, last)
    warm, reference = posterior(x_t, t).mean, exact(x_t, t).mean
    torch.testing.assert_close(warm[1], cold(x_t, t).mean[1])
    torch.testing.assert_close(warm[0], reference[0], rtol=1e-3, atol=1e-3)
    assert (cold(x_t, t).mean[0] - reference[0]).norm() > 0.05 * reference[0].norm()


class Zero(nn.Module):
    def forward(self, x, c_noise, cond=None):
        return torch.zeros_like(x)


@pytest.fixture(scope="module")
def climatology():
    noise = torch.randn(300, *SHAPE, generator=torch.Generator().manual_seed(5))
    rough = SpectralCovariance(torch.logspace(1, -1, 5).expand(2, 4, 5).clone())
    states = rough.sample(noise)
    return ZonalCovariance.fit([states + 0.5 * states.roll(1, 2)], threshold=0.1)


def prior(climatology):
    return Prior(PreconditionedDenoiser(Zero(), SCHEDULE, climatology=climatology))


def observations():
    """Every third number, with errors of 0.1."""
    y = torch.randn(1, 22, generator=torch.Generator().manual_seed(6))
    return GaussianConstraint(lambda x: x.flatten(1)[:, ::3], y, 0.01)


def matrix(covariance):
    unit = torch.eye(64, dtype=torch.float64).reshape(64, *SHAPE)
    return covariance.apply(unit).reshape(64, 64).T


def exact(climatology, forecast=None):
    """The posterior's denoiser, by dense matrices."""
    h, y = torch.eye(64, dtype=torch.float64)[::3], observations().y[0].double()
    information = matrix(climatology).inverse() + h.T @ h / 0.01
    vector = h.T @ y / 0.01
    if forecast is not None:
        precision = matrix(forecast.covariance).inverse()
        information, vector = information + precision, vector + precision @ forecast.mean.flatten()
    covariance = information.inverse()
    mean = (covariance @ vector).reshape(SHAPE)
    return GaussianDenoiser(mean, (covariance + covariance.T) / 2, SCHEDULE)


def states():
    """(x_t, t) at three noise levels."""
    x = torch.randn(3, *SHAPE, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    levels = torch.tensor([0.1, 1.0, 10.0], dtype=torch.float64)
    return x * (1 + levels.reshape(3, 1, 1, 1)), SCHEDULE.t_of_sigma(levels)


def forecast(covariance):
    f = torch.randn(1, *SHAPE, generator=torch.Generator().manual_seed(8), dtype=torch.float64)
    return GaussianForecast(f, covariance)


def check(posterior, expected, tolerance=1e-2):
    x_t, t = states()
    got, known = posterior(x_t, t).mean, expected(x_t, t).mean
    assert (got - known).norm() < tolerance * known.norm()


def test_observations_alone_are_solved_with_the_priors_own_climatology(climatology):
    own, plain = (
        prior(climatology).given(observations(), iterations=1, inner=40, **options)
        for options in ({}, {"climatology": None})
    )
    assert own.climatology is climatology and plain.climatology is None
    known = exact(climatology)
    check(own, known, 1e-3)
    with pytest.raises(AssertionError):
        check(plain, known, 0.05)


def test_more_inner_iterations_come_nearer(climatology):
    x_t, t = states()
    known = exact(climatology)(x_t, t).mean
    errors = [
        (
            prior(climatology).given(observations(), iterations=1, inner=n)(x_t, t).mean - known
        ).norm()
        for n in (1, 4, 40)
    ]
    assert errors[0] > 2 * errors[1] > 4 * errors[2]


def test_a_renoised_forecast_leaves_it_in_use(climatology):
    start = RenoisedForecast(torch.zeros(1, *SHAPE), 0.5)
    assert prior(climatology).given(observations(), start).climatology is climatology


def test_a_forecast_in_the_same_basis_is_solved_with_it(climatology):
    given = forecast(climatology.with_eigenvalues(0.1 + 0.5 * climatology.eigenvalues))
    posterior = prior(climatology).given(observations(), given, iterations=1, inner=40)
    assert posterior.climatology is climatology
    check(posterior, exact(climatology, given))


@pytest.mark.parametrize("kind", ["spectral", "diagonal", "another fit"])
def test_a_forecast_in_another_basis_is_solved_without_it(kind, climatology):
    again = torch.randn(100, *SHAPE, generator=torch.Generator().manual_seed(9))
    error = {
        "spectral": SpectralCovariance(torch.linspace(0.6, 0.2, 5).expand(2, 4, 5).clone()),
        "diagonal": DiagonalCovariance(torch.full(SHAPE, 0.3)),
        "another fit": ZonalCovariance.fit([0.6 * again], threshold=0.3),
    }[kind]
    given = forecast(error)
    posterior = prior(climatology).given(observations(), given, iterations=10, inner=15)
    assert posterior.climatology is None
    check(posterior, exact(climatology, given))


def test_a_prior_without_a_climatology_takes_a_zonal_forecast(climatology):
    """L is 1 in the solver then: exact for white states."""
    white = Prior(GaussianDenoiser(torch.zeros(SHAPE), torch.ones(()), SCHEDULE))
    given = forecast(climatology.with_eigenvalues(0.1 + 0.5 * climatology.eigenvalues))
    posterior = white.given(observations(), given, iterations=1, inner=40)
    assert posterior.climatology is None
    ones = torch.ones_like(climatology.eigenvalues)
    check(posterior, exact(climatology.with_eigenvalues(ones), given))


@pytest.mark.parametrize("warm", [True, False])
def test_climatological_guidance_needs_few_iterations_from_the_last_steps_solution(warm):
    """Six conjugate gradients a step: the posterior mean where they add up, off it where not."""
    g, shape = torch.Generator().manual_seed(0), (2, 4, 8)
    prior = SpectralCovariance(torch.logspace(1, -3, 5).expand(2, 4, 5).clone())
    a = torch.randn(40, 64, generator=g) / 8
    x = prior.sample(torch.randn(1, *shape, generator=g)).flatten(1)
    y = x @ a.T + 0.1 * torch.randn(1, 40, generator=g)
    dense = prior.apply(torch.eye(64).double().reshape(64, *shape)).reshape(64, 64)
    a64 = a.double()
    covariance = (dense.inverse() + a64.T @ a64 / 0.01).inverse()
    mean = covariance @ a64.T @ y[0].double() / 0.01
    guided = Wiener(
        GaussianDenoiser(torch.zeros(shape), prior, SCHEDULE),
        GaussianConstraint(lambda x: x.flatten(1) @ a.T.to(x), y, 0.01),
        climatology=prior,
        iterations=6,
        warm=warm,
    )
    sampler = SAMPLERS.build("dpmpp_2m", denoiser=guided, steps=16)
    drawn = sampler(generator=MemberGenerator(0, 400), shape=shape).flatten(1).double()
    error = (drawn.mean(0) - mean).norm() / covariance.trace().sqrt()
    assert (error < 0.1) == warm, error


@pytest.mark.parametrize("observed", [False, True])
def test_precise_forecasts_over_seven_decades_survive_half_precision(observed):
    """Modes of variance 2500 beside ones of 1e-4, a basis that is orthogonal to 1e-3 only."""
    g, shape = torch.Generator().manual_seed(0), (3, 6, 8)
    states = torch.randn(400, *shape, generator=g) * torch.logspace(1.5, -2, 6)[:, None]
    states = states + 50 * torch.randn(400, 1, 1, 1, generator=g)
    exact = ZonalCovariance.fit([states - states.mean(0)], threshold=1e-3)
    prior = ZonalCovariance.from_tensors(exact.to_tensors(), shape)
    error = prior.with_eigenvalues(0.02 * prior.eigenvalues)
    f = prior.sample(torch.randn(1, *shape, generator=g))
    seen = GaussianConstraint(lambda x: x.flatten(1)[:, :5], f.flatten(1)[:, :5], 1.0)
    constraints = [GaussianForecast(f / 0.98, error.with_eigenvalues(error.eigenvalues / 0.98))]
    guided = Wiener(
        GaussianDenoiser(torch.zeros(shape), prior, SCHEDULE),
        [c.constraint() for c in constraints] + [seen] * observed,
        climatology=prior,
    )
    sampler = SAMPLERS.build("dpmpp_2m", denoiser=guided, steps=16)
    off = sampler(generator=MemberGenerator(0, 50), shape=shape) - f
    inside = prior.analyse(off).abs().square().mean(0) / (
        0.02 * prior.eigenvalues[: sum(prior.ranks)]
    )
    assert 0.5 < inside.median() < 1.5 and inside.quantile(0.9) < 3.0, inside
