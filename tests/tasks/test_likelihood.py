"""A forecast as a likelihood: with the prior, and only with it, it is the forecaster's N(f, P)."""

import pytest
import torch

from gapzoo.diffusion import DiagonalCovariance, SpectralCovariance
from gapzoo.diffusion.zonal import ZonalCovariance
from gapzoo.tasks.forecast_error import KNOWN, likelihood

SHAPE = (2, 4, 8)


@pytest.fixture(scope="module")
def climatology():
    noise = torch.randn(300, *SHAPE, generator=torch.Generator().manual_seed(0))
    states = noise + 0.7 * noise.roll(1, -1) + 0.5 * noise.roll(1, 2)
    return ZonalCovariance.fit([states], threshold=1.0)


def matrix(covariance):
    unit = torch.eye(64, dtype=torch.float64).reshape(64, *SHAPE)
    return covariance.apply(unit).reshape(64, 64).T


def product(climatology, constraint):
    """Mean (M,64) and covariance (64,64) of N(0, L) times the likelihood, by dense matrices."""
    precision = matrix(constraint.covariance).inverse()
    covariance = (matrix(climatology).inverse() + precision).inverse()
    return constraint.mean.flatten(1).double() @ precision @ covariance, covariance


def forecasts(count=3):
    return torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(1))


def errors(climatology, low, high):
    """P, from ``low`` to ``high`` of L mode by mode."""
    values = climatology.eigenvalues
    return climatology.with_eigenvalues(values * torch.linspace(low, high, len(values)))


def test_prior_times_likelihood_is_the_forecast_with_its_errors(climatology):
    error, f = errors(climatology, 0.05 * KNOWN, 0.99 * KNOWN), forecasts()
    mean, covariance = product(climatology, likelihood(f, error, climatology))
    torch.testing.assert_close(covariance, matrix(error), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(mean, f.flatten(1).double(), rtol=1e-3, atol=1e-3)


def test_taken_as_it_is_the_forecast_would_be_drawn_to_the_climate(climatology):
    """The fact that the likelihood corrects: half of L counted twice leaves 2/3 of f."""
    error, f = errors(climatology, 0.5, 0.5), forecasts()
    mean, covariance = product(climatology, likelihood(f, error, None))
    torch.testing.assert_close(mean, f.flatten(1).double() / 1.5, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(covariance, matrix(error) / 1.5, rtol=1e-3, atol=1e-4)


def test_beyond_the_clip_a_forecast_counts_the_less_the_larger_its_errors(climatology):
    """Share clipped to KNOWN: P_l = P / (1 - KNOWN), f_l = f / (1 - KNOWN)."""
    for factor in (1.0, 3.0, 30.0):
        error, f = errors(climatology, factor, factor), forecasts()
        mean, covariance = product(climatology, likelihood(f, error, climatology))
        left = 1 / (1 + (1 - KNOWN) / factor)
        expected = left * matrix(climatology)
        torch.testing.assert_close(covariance, expected, rtol=1e-3, atol=1e-4)
        drawn = left / factor * f.flatten(1).double()
        torch.testing.assert_close(mean, drawn, rtol=1e-3, atol=1e-3)


def test_at_the_clip_it_is_still_exact(climatology):
    error, f = errors(climatology, KNOWN, KNOWN), forecasts()
    mean, covariance = product(climatology, likelihood(f, error, climatology))
    torch.testing.assert_close(covariance, matrix(error), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(mean, f.flatten(1).double(), rtol=1e-2, atol=1e-2)


def test_members_are_each_their_own(climatology):
    error, f = errors(climatology, 0.1, 0.9), forecasts()
    together = likelihood(f, error, climatology).mean
    alone = likelihood(f[1:2], error, climatology).mean
    torch.testing.assert_close(together[1:2], alone, rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a second device")
def test_forecasts_may_lie_on_another_device_than_the_statistics(climatology):
    error, f = errors(climatology, 0.1, 0.9), forecasts()
    far, here = (likelihood(x, error, climatology).mean for x in (f.cuda(), f))
    torch.testing.assert_close(far.cpu(), here, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["spectral", "diagonal", "another fit", "no climatology"])
def test_in_another_basis_the_forecast_is_taken_as_it_is(kind, climatology):
    f = forecasts()
    error = {
        "spectral": SpectralCovariance(torch.full((2, 4, 5), 0.5)),
        "diagonal": DiagonalCovariance(0.5),
        "another fit": ZonalCovariance.fit([f], threshold=0.1),
        "no climatology": errors(climatology, 0.5, 0.5),
    }[kind]
    given = likelihood(f, error, None if kind == "no climatology" else climatology)
    assert given.mean is f and given.covariance is error


def test_a_climatology_that_is_not_zonal_is_not_used():
    f, error = forecasts(), SpectralCovariance(torch.full((2, 4, 5), 0.5))
    given = likelihood(f, error, SpectralCovariance(torch.ones(2, 4, 5)))
    assert given.mean is f and given.covariance is error
