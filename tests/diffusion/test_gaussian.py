import pytest
import torch
from azula.denoise import GaussianDenoiser as AzulaGaussian
from azula.linalg.covariance import FullCovariance

from gapzoo.diffusion import SCHEDULES, GaussianDenoiser


@pytest.mark.parametrize("name", SCHEDULES.names())
def test_mean_and_covariance_are_those_of_conditioning_the_joint_gaussian(name, linear):
    schedule = SCHEDULES.build(name)
    x_t = torch.randn(3, 8, 1, 1, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    t = schedule.t_of_sigma(torch.tensor([0.1, 1.0, 20.0], dtype=torch.float64))
    posterior = linear.prior(schedule)(x_t, t)
    units = torch.eye(8, dtype=torch.float64).reshape(8, 1, 8, 1, 1)
    columns = torch.stack([posterior.covariance(u.expand(3, 8, 1, 1)) for u in units])
    p, mean = linear.covariance.double(), linear.mean.double()
    for k, (alpha, sigma) in enumerate(zip(*schedule(t), strict=True)):
        gain = alpha * p @ (alpha**2 * p + sigma**2 * torch.eye(8)).inverse()
        expected = mean + gain @ (x_t[k].flatten() - alpha * mean)
        torch.testing.assert_close(posterior.mean[k].flatten(), expected)
        torch.testing.assert_close(columns[:, k].flatten(1), p - alpha * gain @ p)


@pytest.mark.parametrize("name", SCHEDULES.names())
def test_the_covariance_is_tweedies(name, linear):
    schedule = SCHEDULES.build(name)
    denoiser, t = linear.prior(schedule), schedule.t_of_sigma(torch.tensor(0.7).double())
    x_t = torch.zeros(1, 8, 1, 1, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda x: denoiser(x, t).mean, x_t)
    alpha, sigma = schedule(t)
    v = torch.randn(1, 8, 1, 1, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    expected = sigma**2 / alpha * jacobian.reshape(8, 8) @ v.flatten()
    torch.testing.assert_close(denoiser(x_t, t).covariance(v).flatten(), expected)


def test_it_agrees_with_azula(linear):
    schedule = SCHEDULES.build("cosine")
    theirs = AzulaGaussian(linear.mean, FullCovariance(*_factors(linear.covariance)), schedule)
    x_t = torch.randn(5, 8, generator=torch.Generator().manual_seed(2))
    for t in (torch.tensor(0.1), torch.tensor(0.6)):
        ours = linear.prior(schedule)(x_t.reshape(5, 8, 1, 1), t).mean.flatten(1)
        torch.testing.assert_close(ours, theirs(x_t, t).mean, rtol=1e-4, atol=1e-4)


def _factors(covariance):
    eigenvalues, vectors = torch.linalg.eigh(covariance)
    return vectors, eigenvalues


def test_scalar_and_diagonal_covariances_are_the_full_matrix_of_theirs():
    schedule, g = SCHEDULES.build("edm"), torch.Generator().manual_seed(0)
    x_t, t = torch.randn(2, 2, 2, 2, generator=g), torch.tensor(0.3)
    mean, variance = torch.randn(2, 2, 2, generator=g), torch.rand(2, 2, 2, generator=g)
    for given in (variance, 0.4, torch.tensor([0.2, 0.9]).reshape(2, 1, 1)):
        full = torch.diag(torch.as_tensor(given).expand(2, 2, 2).flatten())
        a, b = GaussianDenoiser(mean, given, schedule), GaussianDenoiser(mean, full, schedule)
        torch.testing.assert_close(a(x_t, t).mean, b(x_t, t).mean)


def test_time_0_returns_the_state_even_where_the_prior_is_certain():
    x = torch.randn(2, 2, 1, 1, generator=torch.Generator().manual_seed(0))
    variance = torch.tensor([1.0, 0.0]).reshape(2, 1, 1)
    denoiser = GaussianDenoiser(torch.ones(2, 1, 1), variance, SCHEDULES.build("edm"))
    mean = denoiser(x, torch.tensor(0.0)).mean
    torch.testing.assert_close(mean[:, 0], x[:, 0])
    torch.testing.assert_close(mean[:, 1], torch.ones(2, 1, 1))
