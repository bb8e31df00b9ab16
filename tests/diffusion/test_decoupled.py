"""Decoupled annealing: exact draws of Gaussian posteriors in any number of steps."""

import pytest
import torch
from worlds import expect

from gapzoo.core import GapzooError, MemberGenerator
from gapzoo.diffusion import SAMPLERS, SCHEDULES, GaussianDenoiser
from gapzoo.diffusion.covariance import SpectralCovariance
from gapzoo.diffusion.guidance import GUIDANCE, GaussianConstraint
from gapzoo.diffusion.guidance.robust import StudentConstraint
from gapzoo.diffusion.prior import GaussianForecast

SHAPE, COUNT = (2, 4, 8), 6000
SCHEDULE = SCHEDULES.build("edm", sigma_min=0.02)


def random():
    return torch.Generator().manual_seed(0)


def climate():
    g = random()
    return SpectralCovariance(0.01 + 3 * torch.rand(2, 4, 5, generator=g) ** 4, True)


def operator():
    return torch.randn(6, 64, generator=random()) / 8


def observed(kind=GaussianConstraint, **more):
    a, y = operator(), torch.randn(1, 6, generator=torch.Generator().manual_seed(1))
    return kind(lambda x: x.flatten(1) @ a.T.to(x), y, 0.2, **more)


def forecast():
    g = torch.Generator().manual_seed(2)
    error = SpectralCovariance(0.01 + 0.1 * torch.rand(2, 4, 5, generator=g), True)
    return GaussianForecast(torch.randn(1, *SHAPE, generator=g), error)


def guided(constraints, name="wiener", **options):
    prior = GaussianDenoiser(torch.zeros(SHAPE), climate(), SCHEDULE)
    options = {"climatology": climate(), "tolerance": 0.0, "iterations": 12} | options
    return GUIDANCE.build(name, denoiser=prior, constraints=constraints, **options)


def draw(denoiser, count=COUNT, **options):
    sampler = SAMPLERS.build("decoupled", denoiser=denoiser, **options)
    return sampler(shape=(count, *SHAPE), generator=MemberGenerator(0, count))


def dense(covariance):
    eye = torch.eye(64).double().reshape(64, *SHAPE)
    return covariance.apply(eye).reshape(64, 64)


def posterior(with_forecast):
    """Mean (64,) and covariance (64, 64) by dense algebra."""
    a, y, f = operator().double(), observed().y[0].double(), forecast()
    precision = dense(climate()).inverse() + a.T @ a / 0.2
    pulled = a.T @ y / 0.2
    if with_forecast:
        e = dense(f.covariance).inverse()
        precision, pulled = precision + e, pulled + e @ f.mean.flatten().double()
    return torch.linalg.solve(precision, pulled), precision.inverse()


def off(drawn, mean, covariance):
    """Departures of mean and covariance in units of the posterior, largest of all directions."""
    root = torch.linalg.cholesky(covariance)
    white = torch.linalg.solve_triangular(root, (drawn.flatten(1).double() - mean).T, upper=False)
    found = white @ white.T / white.shape[1]
    return white.mean(1).abs().max(), (torch.linalg.eigvalsh(found) - 1).abs().max()


@pytest.mark.parametrize("options", [{"steps": 1}, {"steps": 3}, {"steps": 3, "highest": 0.7}])
@pytest.mark.parametrize("with_forecast", [False, True])
def test_a_gaussian_posterior_is_drawn_exactly_in_any_number_of_steps(options, with_forecast):
    """To Monte Carlo error: 4 / sqrt(n) of 64 means, twice the edge 2 sqrt(64 / n) of spectra."""
    constraints = [observed(), *([forecast().constraint()] if with_forecast else [])]
    mean, spread = off(draw(guided(constraints), **options), *posterior(with_forecast))
    assert mean < 4.5 / COUNT**0.5
    assert spread < 1.5 * 2 * (64 / COUNT) ** 0.5


def test_so_are_a_prior_alone_and_under_a_forecast_alone():
    prior = GaussianDenoiser(torch.zeros(SHAPE), climate(), SCHEDULE)
    under, p, f = guided([forecast().constraint()]), dense(climate()), forecast()
    e = dense(f.covariance).inverse()
    covariance = (p.inverse() + e).inverse()
    known = {
        prior: (torch.zeros(64).double(), p),
        under: (covariance @ e @ f.mean.flatten().double(), covariance),
    }
    for denoiser, law in known.items():
        mean, spread = off(draw(denoiser, steps=2), *law)
        assert mean < 4.5 / COUNT**0.5 and spread < 1.5 * 2 * (64 / COUNT) ** 0.5


def test_a_member_is_the_same_alone_and_among_many():
    denoiser = guided([observed(), forecast().constraint()])
    many = draw(denoiser, 5, steps=4)
    sampler = SAMPLERS.build("decoupled", denoiser=denoiser, steps=4)
    alone = sampler(shape=(1, *SHAPE), generator=MemberGenerator(0, [2]))
    torch.testing.assert_close(many[2:3], alone, rtol=1e-4, atol=1e-4)
    assert (many[1] - many[2]).abs().max() > 0.1


def test_what_has_no_gaussian_draw_is_refused():
    heavy = guided([observed(StudentConstraint, degrees=4.0)])
    with expect(GapzooError, "heavy-tailed", "another sampler"):
        draw(heavy, 2, steps=2)
    with expect(GapzooError, "MMPS knows means", "guidance 'wiener'"):
        draw(GUIDANCE.build("mmps", denoiser=guided([observed()]).denoiser,
                            constraints=[observed()]), 2, steps=2)  # fmt: skip
    for options in ({"highest": 90.0}, {"highest": 1.0, "steps": 1}):
        with expect(GapzooError, "'highest'", "2 steps or more"):
            draw(guided([observed()]), 2, **options)
