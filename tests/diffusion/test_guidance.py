"""Guidance: exact where the posterior is known; what each method is, and where it is exact."""

import pytest
import torch
from azula.guidance.mmps import MMPSDenoiser
from azula.linalg.covariance import DiagonalCovariance as AzulaDiagonal
from noisy import LEVELS, noisy

from gapzoo.diffusion import (
    GUIDANCE,
    SAMPLERS,
    SCHEDULES,
    Denoiser,
    DenseCovariance,
    GaussianConstraint,
    GaussianDenoiser,
    GaussianForecast,
    Posterior,
    SpectralCovariance,
)


def test_the_registry_finds_every_method_by_itself():
    assert GUIDANCE.names() == ["dps", "mmps", "pigdm", "sda", "wiener"]


@pytest.mark.parametrize("solver", ["gmres", "cg"])
@pytest.mark.parametrize("name", SCHEDULES.names())
def test_mmps_is_the_exact_denoiser_of_the_posterior(name, solver, linear):
    schedule = SCHEDULES.build(name)
    x_t, t = noisy(schedule)
    guided = GUIDANCE.build(
        "mmps", denoiser=linear.prior(schedule), constraints=linear.constraint(), solver=solver
    )
    expected = linear.exact(schedule)(x_t, t).mean
    torch.testing.assert_close(guided(x_t, t).mean, expected, rtol=1e-5, atol=1e-6)


def test_it_is_exact_to_float32_too(linear):
    schedule = SCHEDULES.build("edm")
    x_t, t = noisy(schedule, torch.float32)
    guided = GUIDANCE.build(
        "mmps", denoiser=linear.prior(schedule), constraints=linear.constraint()
    )
    expected = linear.exact(schedule)(x_t, t).mean
    torch.testing.assert_close(guided(x_t, t).mean, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("iterations", [1, 2, 3])
@pytest.mark.parametrize("solver", ["gmres", "cg"])
def test_every_iteration_agrees_with_azula(solver, iterations, linear):
    schedule = SCHEDULES.build("cosine")
    prior, t = linear.prior(schedule), torch.tensor(0.55, dtype=torch.float64)
    x_t = noisy(schedule)[0]
    ours = GUIDANCE.build(
        "mmps",
        denoiser=prior,
        constraints=linear.constraint(),
        solver=solver,
        iterations=iterations,
    )
    theirs = MMPSDenoiser(
        prior,
        linear.y.double(),
        lambda x: x.flatten(1) @ linear.a.T.double(),
        AzulaDiagonal(linear.variance.double()),
        solver=solver,
        iterations=iterations,
    )
    torch.testing.assert_close(ours(x_t, t).mean, theirs(x_t, t).mean, rtol=1e-4, atol=1e-4)


def sampled_errors(name, linear, one_stream, count=4000):
    """Relative error of the posterior's mean and covariance by 64 Heun steps."""
    schedule = SCHEDULES.build("cosine")
    posterior = GUIDANCE.build(
        name, denoiser=linear.prior(schedule), constraints=linear.constraint()
    )
    sampler = SAMPLERS.build("dpmpp_2m", denoiser=posterior, steps=64)
    x = sampler(shape=(count, 8, 1, 1), generator=one_stream(0, count)).flatten(1).double()
    return _errors(x, linear)


def _errors(x, linear):
    mean, covariance = linear.posterior()
    error = (torch.cov(x.T) - covariance).norm() / covariance.norm()
    return ((x.mean(0) - mean).norm() / mean.norm()).item(), error.item()


def test_samples_by_mmps_are_the_posterior_as_well_as_exact_draws_and_others_are_not(
    linear, one_stream
):
    mean, covariance = linear.posterior()
    root = torch.linalg.cholesky(covariance)
    exact = []
    for seed in range(20):
        noise = one_stream(100 + seed, 4000).randn((4000, 8)).double()
        exact.append(_errors(mean + noise @ root.T, linear))
    most = torch.tensor(exact).max(0).values
    mmps = sampled_errors("mmps", linear, one_stream)
    assert mmps[0] < 1.2 * most[0] and mmps[1] < 1.2 * most[1] + 0.01
    for name, factor in (("dps", 5), ("sda", 2), ("pigdm", 1.5)):
        errors = sampled_errors(name, linear, one_stream)
        assert errors[0] > factor * most[0] and errors[1] > factor * most[1], name


@pytest.mark.parametrize("name", ["mmps", "sda", "pigdm", "dps"])
def test_a_batch_of_times_is_each_time_alone(name, linear):
    schedule = SCHEDULES.build("edm")
    guided = GUIDANCE.build(name, denoiser=linear.prior(schedule), constraints=linear.constraint())
    x_t, t = noisy(schedule)
    together = guided(x_t, t).mean
    for k in range(4):
        torch.testing.assert_close(together[k : k + 1], guided(x_t[k : k + 1], t[k]).mean)


def test_wrapping_equals_stacking(linear):
    schedule = SCHEDULES.build("cosine")
    x_t, t = noisy(schedule)
    first, rest = linear.constraint(slice(0, 1)), linear.constraint(slice(1, 3))
    prior = linear.prior(schedule)
    inner = GUIDANCE.build("mmps", denoiser=prior, constraints=first)
    wrapped = GUIDANCE.build("mmps", denoiser=inner, constraints=rest)
    stacked = GUIDANCE.build("mmps", denoiser=prior, constraints=[first, rest])
    assert torch.equal(wrapped(x_t, t).mean, stacked(x_t, t).mean)
    expected = linear.exact(schedule)(x_t, t).mean
    torch.testing.assert_close(wrapped(x_t, t).mean, expected, rtol=1e-5, atol=1e-6)


def test_wrapping_with_other_options_multiplies_likelihoods_too(linear):
    schedule = SCHEDULES.build("edm")
    x_t, t = noisy(schedule)
    guided = linear.prior(schedule)
    for k, solver in enumerate(("gmres", "cg", "gmres")):
        guided = GUIDANCE.build(
            "mmps",
            denoiser=guided,
            constraints=linear.constraint(slice(k, k + 1)),
            solver=solver,
            iterations=1,
        )
    expected = linear.exact(schedule)(x_t, t).mean
    torch.testing.assert_close(guided(x_t, t).mean, expected, rtol=1e-5, atol=1e-6)


def test_pigdm_is_exact_for_an_independent_prior(linear):
    linear.mean, linear.covariance = torch.zeros(8), torch.eye(8)
    schedule = SCHEDULES.build("cosine")
    x_t, t = noisy(schedule)
    guided = GUIDANCE.build(
        "pigdm", denoiser=linear.prior(schedule), constraints=linear.constraint()
    )
    expected = linear.exact(schedule)(x_t, t).mean
    torch.testing.assert_close(guided(x_t, t).mean, expected, rtol=1e-5, atol=1e-6)


def test_sda_is_exact_where_its_gamma_is_the_priors(linear):
    linear.mean, linear.covariance, linear.a = torch.zeros(8), torch.eye(8), torch.eye(8)[:3]
    schedule, r = SCHEDULES.build("cosine"), torch.tensor(1.7, dtype=torch.float64)
    x_t, t = noisy(schedule)[0], schedule.t_of_sigma(r)
    guided = GUIDANCE.build(
        "sda",
        denoiser=linear.prior(schedule),
        constraints=linear.constraint(),
        gamma=(1 / (1 + r**2)).item(),
    )
    expected = linear.exact(schedule)(x_t, t).mean
    torch.testing.assert_close(guided(x_t, t).mean, expected, rtol=1e-5, atol=1e-6)


def test_dps_moves_by_zeta_along_the_misfit(linear):
    schedule = SCHEDULES.build("edm")
    prior, (x_t, t) = linear.prior(schedule), noisy(schedule)
    guided = GUIDANCE.build("dps", denoiser=prior, constraints=linear.constraint(), zeta=0.7)
    posterior, a = prior(x_t, t), linear.a.double()
    d = linear.y - posterior.mean.flatten(1) @ a.T
    shift = posterior.covariance((d / d.norm(dim=1, keepdim=True) @ a).reshape(x_t.shape))
    torch.testing.assert_close(guided(x_t, t).mean, posterior.mean + 0.7 * shift)


def test_a_forecast_of_the_whole_state_is_exact_with_observations(linear):
    schedule = SCHEDULES.build("edm")
    root = torch.randn(8, 8, generator=torch.Generator().manual_seed(9))
    error = 0.05 * (root @ root.T) / 8 + 0.02 * torch.eye(8)
    forecast = linear.mean + 0.3
    x_t, t = noisy(schedule)
    constraint = GaussianForecast(forecast.reshape(1, 8, 1, 1), DenseCovariance(error)).constraint()
    guided = GUIDANCE.build(
        "mmps",
        denoiser=linear.prior(schedule),
        constraints=[constraint, linear.constraint()],
        iterations=11,
    )
    expected = linear.exact(schedule, forecast=forecast, error=error)(x_t, t).mean
    torch.testing.assert_close(guided(x_t, t).mean, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("name", "iterations"), [("mmps", 1), ("wiener", 12)])
@pytest.mark.parametrize("meridional", [False, True])
def test_with_the_priors_own_climatology_guidance_is_exact(meridional, name, iterations):
    g = torch.Generator().manual_seed(0)
    shape, schedule = (2, 4, 8), SCHEDULES.build("edm")
    prior = SpectralCovariance(0.01 + 3 * torch.rand(2, 4, 5, generator=g) ** 4, meridional)
    error = SpectralCovariance(0.01 + 0.1 * torch.rand(2, 4, 5, generator=g), meridional)
    f = torch.randn(1, *shape, generator=g)
    y, a = torch.randn(1, 6, generator=g), torch.randn(6, 64, generator=g) / 8

    def dense(operator):
        return operator.apply(torch.eye(64).double().reshape(64, *shape)).reshape(64, 64)

    p, e = dense(prior), dense(error)
    a64 = a.double()
    covariance = (p.inverse() + e.inverse() + a64.T @ a64 / 0.2).inverse()
    mean = covariance @ (e.inverse() @ f.flatten().double() + a64.T @ y[0].double() / 0.2)
    exact = GaussianDenoiser(mean.reshape(shape), (covariance + covariance.T) / 2, schedule)
    guided = GUIDANCE.build(
        name,
        denoiser=GaussianDenoiser(torch.zeros(shape), prior, schedule),
        constraints=[
            GaussianConstraint(lambda x: x.flatten(1) @ a.T.to(x), y, 0.2),
            GaussianForecast(f, error).constraint(),
        ],
        iterations=iterations,
        climatology=prior,
        **({"tolerance": 0.0} if name == "wiener" else {}),
    )
    x_t = torch.randn(4, *shape, generator=g, dtype=torch.float64)
    x_t = x_t * (1 + LEVELS.reshape(4, 1, 1, 1))
    t = schedule.t_of_sigma(LEVELS)
    torch.testing.assert_close(guided(x_t, t).mean, exact(x_t, t).mean, rtol=1e-3, atol=1e-3)


def test_wrong_jacobians_do_not_touch_climatological_guidance():
    """A network whose Jacobian is a tenth of V's: x_hat is right, MMPS trusts the forecast less."""

    class Detached(GaussianDenoiser):
        def forward(self, x_t, t, **cond):
            mean = super().forward(x_t, t, **cond).mean
            return Posterior(mean.detach() + 0.1 * (mean - mean.detach()))

    schedule, shape = SCHEDULES.build("edm"), (2, 4, 8)
    prior = SpectralCovariance(torch.full((2, 4, 5), 2.0))
    error = torch.full((2, 4, 5), 100.0)  # but for zonal means, so that little can be absorbed
    error[..., 0] = 0.1
    forecast = GaussianForecast(torch.ones(1, *shape), prior.with_eigenvalues(error))
    x_t, t = torch.zeros(1, *shape), schedule.t_of_sigma(torch.tensor(1.0))
    means = {
        name: GUIDANCE.build(
            name,
            denoiser=Detached(torch.zeros(shape), prior, schedule),
            constraints=forecast.constraint(),
            climatology=prior,
        )(x_t, t).mean
        for name in ("wiener", "mmps")
    }
    exact = 1 / 0.1 / (1 / 0.1 + 1 / 2.0 + 1)
    torch.testing.assert_close(means["wiener"], torch.full((1, *shape), exact), rtol=1e-3, atol=0)
    assert (means["mmps"] < 0.9 * exact).all()


class TwoStates(Denoiser):
    """Exact denoiser of a prior that no Gaussian resembles: x is -1 or 1, with spread s."""

    def __init__(self, schedule, s=0.1, forecast=0.0, error=float("inf")):
        super().__init__()
        self.schedule, self.s, self.forecast, self.error = schedule, s, forecast, error

    def forward(self, x_t, t, **cond):
        alpha, sigma = self.scales(x_t, t)
        precision = (alpha / sigma) ** 2 + 1 / self.error
        seen = (alpha / sigma**2 * x_t + self.forecast / self.error) / precision
        total = self.s**2 + 1 / precision
        distance = torch.stack([(seen - centre) ** 2 for centre in (-1.0, 1.0)])
        share = torch.softmax(-distance / (2 * total), 0)
        means = [(c / precision + seen * self.s**2) / total for c in (-1.0, 1.0)]
        return Posterior((share * torch.stack(means)).sum(0))


def test_a_white_forecast_is_exact_for_any_prior_and_an_observation_of_everything_is_not():
    schedule, error = SCHEDULES.build("edm"), 0.3
    prior = TwoStates(schedule)
    f = torch.full((1, 1, 1, 1), 0.25, dtype=torch.float64)
    exact = TwoStates(schedule, forecast=0.25, error=error)
    x_t = torch.tensor([-3.0, -0.5, 0.4, 2.5], dtype=torch.float64).reshape(4, 1, 1, 1)
    t = schedule.t_of_sigma(torch.tensor([2.0, 0.7, 0.7, 1.5], dtype=torch.float64))
    expected = exact(x_t, t).mean
    absorbed = GaussianForecast(f, error).constraint()
    observed = GaussianConstraint(lambda x: 1.0 * x, f, error)
    errors = [
        (GUIDANCE.build("mmps", denoiser=prior, constraints=c)(x_t, t).mean - expected).abs().max()
        for c in (absorbed, observed)
    ]
    assert errors[0] < 0.01 and errors[1] > 0.2
