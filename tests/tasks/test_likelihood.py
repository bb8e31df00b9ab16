"""A forecast as a likelihood: with the prior, and only with it, it is the forecaster's N(f, P)."""

import math

import pytest
import torch

from gapzoo.core import GapzooError
from gapzoo.diffusion import DiagonalCovariance, SpectralCovariance
from gapzoo.diffusion.zonal import RegressedErrors, ZonalCovariance
from gapzoo.tasks.forecast_error import (
    LEAST,
    forgetting,
    likelihood,
    mean_errors,
    merged,
    mode_errors,
)

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
    error, f = errors(climatology, 0.05, 0.9), forecasts()
    mean, covariance = product(climatology, likelihood(f, error, climatology))
    torch.testing.assert_close(covariance, matrix(error), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(mean, f.flatten(1).double(), rtol=1e-3, atol=1e-3)


def test_taken_as_it_is_the_forecast_would_be_drawn_to_the_climate(climatology):
    """The fact that the likelihood corrects: half of L counted twice leaves 2/3 of f."""
    error, f = errors(climatology, 0.5, 0.5), forecasts()
    mean, covariance = product(climatology, likelihood(f, error, None))
    torch.testing.assert_close(mean, f.flatten(1).double() / 1.5, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(covariance, matrix(error) / 1.5, rtol=1e-3, atol=1e-4)


def test_prior_times_likelihood_is_the_regressed_forecast(climatology):
    """With gains g the product is N(g f, P)."""
    gain = torch.linspace(0.4, 1.1, len(climatology.eigenvalues))
    shares = torch.linspace(0.1, 0.9, len(gain))
    error = RegressedErrors(climatology, climatology.eigenvalues * shares, gain)
    f = forecasts()
    mean, covariance = product(climatology, likelihood(f, error, climatology))
    torch.testing.assert_close(covariance, matrix(error), rtol=1e-3, atol=1e-4)
    expected = climatology.filter(f.double(), lambda b: gain.to(b)).flatten(1)
    torch.testing.assert_close(mean, expected, rtol=1e-3, atol=1e-3)


def test_a_forecast_that_knows_nothing_leaves_the_climate(climatology):
    """P = L and beyond: the product is the prior, to the least coherence, and stays finite."""
    for factor in (1.0, 3.0):
        error, f = errors(climatology, factor, factor), forecasts()
        _, covariance = product(climatology, likelihood(f, error, climatology))
        expected = (1 - LEAST) * matrix(climatology)
        torch.testing.assert_close(covariance, expected, rtol=1e-3, atol=1e-4)


def test_the_regression_of_a_forecast_whose_gain_and_coherence_are_known(climatology):
    """x = a f + e in every mode, f ~ N(0, F), e ~ N(0, P): g = a, P its own share."""
    g, count = torch.Generator().manual_seed(5), 4000
    a = torch.linspace(0.3, 1.2, len(climatology.eigenvalues))
    own = climatology.eigenvalues * torch.linspace(0.5, 0.2, len(a))
    rest = climatology.eigenvalues - a**2 * own
    assert (rest > 0).all()
    f = climatology.with_eigenvalues(own).sample(torch.randn(count, *SHAPE, generator=g))
    e = climatology.with_eigenvalues(rest).sample(torch.randn(count, *SHAPE, generator=g))
    truths = climatology.filter(f, lambda b: a.to(b)) + e
    found = mode_errors(f, truths, climatology)
    left = [len(v) > rank for v, rank in zip(climatology.vectors, climatology.ranks, strict=True)]
    there = torch.tensor([True] * sum(climatology.ranks) + left)  # some tails have no direction
    torch.testing.assert_close(found.gain[there], a[there], rtol=0.1, atol=0.06)
    torch.testing.assert_close(found.eigenvalues[there], rest[there], rtol=0.1, atol=1e-3)


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


@pytest.mark.parametrize(("share", "count"), [(0.1, 5), (0.5, 5), (0.9, 30), (1.0, 30)])
def test_the_mean_of_few_members_errs_as_much_as_it_says(climatology, share, count):
    """Truths and members are draws around m with the variance share L, m of (1 - share) L.

    Wide ensembles are cut at the climate's variance, which a noisy estimate of it meets too often.
    """
    noise = torch.Generator().manual_seed(3)

    def draw(part, *lead):
        z = torch.randn(*lead, *SHAPE, generator=noise)
        return climatology.filter(z.reshape(-1, *SHAPE), lambda b: (part * b).sqrt()).reshape(
            *lead, *SHAPE
        )

    centre = draw(1 - share, 200)
    truth, members = centre + draw(share, 200), centre[:, None] + draw(share, 200, count)
    none = climatology.with_eigenvalues(1e-9 * climatology.eigenvalues)
    missed, said = 0.0, 0.0
    for ensemble, x in zip(members, truth, strict=True):
        error = mean_errors(ensemble, none, climatology)
        best = climatology.filter(ensemble.mean(0, keepdim=True), lambda b, g=error.gain: g.to(b))
        missed += climatology.products(best - x, best - x) / 200
        said += error.eigenvalues / 200
    ratio = (said / climatology.eigenvalues).mean() / (missed / climatology.eigenvalues).mean()
    assert abs(ratio - 1) < 0.06, float(ratio)


def test_a_forecasters_own_gains_scale_its_members(climatology):
    """Members 1 / g times too large, of a forecaster whose gain is g, are the members."""
    members = climatology.filter(forecasts(6), lambda b: (0.3 * b).sqrt())
    static = 0.1 * climatology.eigenvalues
    plain = mean_errors(members, climatology.with_eigenvalues(static), climatology)
    halved = RegressedErrors(climatology, static, torch.full_like(static, 0.5))
    doubled = mean_errors(2 * members, halved, climatology)
    torch.testing.assert_close(doubled.eigenvalues, plain.eigenvalues, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(doubled.gain, plain.gain / 2, rtol=1e-4, atol=1e-6)


def test_no_mode_remembers_for_longer_than_it_may(climatology):
    """Steps of a day, memory of 50: what is left of a mode after 50 days, and its variance."""
    level = climatology.eigenvalues
    given = RegressedErrors(climatology, 1e-3 * level, torch.full_like(level, 1.02))
    kept = forgetting(given, climatology, 24, 50.0)
    assert torch.allclose(kept.gain**50, torch.full_like(level, math.exp(-1)), rtol=1e-4)
    assert torch.allclose(kept.gain**2 * level + kept.eigenvalues, level)
    assert torch.allclose(kept.gain + kept.forced, torch.ones_like(level))
    quarter = forgetting(given, climatology, 6, 50.0)
    assert torch.allclose(quarter.gain**4, kept.gain)


def test_the_persistence_of_modes_whose_memory_is_known(climatology):
    """y = r x + (1 - r^2)^1/2 e mode by mode: correlation r, whatever the forecast."""
    g, count = torch.Generator().manual_seed(8), 2000
    x, e = (climatology.sample(torch.randn(count, *SHAPE, generator=g)) for _ in range(2))
    r = torch.linspace(-0.5, 0.99, len(climatology.eigenvalues))
    y = climatology.filter(x, lambda b: r.to(b)) + climatology.filter(
        e, lambda b: (1 - r**2).sqrt().to(b)
    )
    found = mode_errors(0.3 * y, y, climatology, x).persistence
    left = [len(v) > rank for v, rank in zip(climatology.vectors, climatology.ranks, strict=True)]
    there = torch.tensor([True] * sum(climatology.ranks) + left)  # some tails have no direction
    torch.testing.assert_close(found[there], r[there], rtol=0, atol=0.06)
    assert mode_errors(y, y, climatology).persistence is None


def test_what_the_climate_itself_forgets_keeps_its_errors_however_well_it_is_forecast(climatology):
    """Memory of 50 days, daily steps: modes that keep 0.99 of themselves are bound, 0.97 not."""
    level = climatology.eigenvalues
    kept = torch.tensor([0.99, 0.97]).repeat(len(level))[: len(level)]
    given = RegressedErrors(climatology, 1e-3 * level, torch.full_like(level, 1.02), kept)
    found = forgetting(given, climatology, 24, 50.0)
    assert (found.eigenvalues[::2] > 0.03 * level[::2]).all()
    torch.testing.assert_close(found.eigenvalues[1::2], given.eigenvalues[1::2])
    torch.testing.assert_close(found.gain, torch.full_like(level, math.exp(-1 / 50)))


def test_a_drift_of_a_slow_mode_is_called_back(climatology):
    """x -> g (x + b): b g / (1 - g) at last, where without a bound it would go on for ever."""
    level, b = climatology.eigenvalues, 0.01
    kept = forgetting(climatology.with_eigenvalues(1e-4 * level), climatology, 24, 50.0)
    x = torch.zeros(1, *SHAPE)
    for _ in range(1000):
        constraint = likelihood(x + b, kept, climatology)
        x = product(climatology, constraint)[0].reshape(x.shape).float()
    gain = math.exp(-1 / 50)
    assert torch.allclose(x, torch.full_like(x, b * gain / (1 - gain)), rtol=1e-2)


def test_what_is_forgotten_goes_over_to_the_mean_under_the_forcing(climatology):
    """x -> k (x + b) + (1 - k) c settles b k / (1 - k) off c; a forecast at c stays there."""
    level, b = climatology.eigenvalues, 0.01
    kept = forgetting(climatology.with_eigenvalues(1e-4 * level), climatology, 24, 50.0)
    centre, gain = forecasts(1), math.exp(-1 / 50)
    there = product(climatology, likelihood(centre, kept, climatology, centre))[0]
    torch.testing.assert_close(there, centre.flatten(1).double(), rtol=1e-3, atol=1e-3)
    x = torch.zeros(1, *SHAPE)
    for _ in range(1000):
        constraint = likelihood(x + b, kept, climatology, centre)
        x = product(climatology, constraint)[0].reshape(x.shape).float()
    torch.testing.assert_close(x, centre + b * gain / (1 - gain), rtol=1e-2, atol=5e-3)


def test_modes_that_forget_by_themselves_are_left_alone(climatology):
    """Errors of a tenth and more, and gains below the bound."""
    own = errors(climatology, 0.1, 0.9)
    gain = torch.linspace(0.97, 0.2, len(own.eigenvalues))
    kept = forgetting(RegressedErrors(climatology, own.eigenvalues, gain), climatology, 24, 50.0)
    assert torch.equal(kept.eigenvalues, own.eigenvalues)
    assert torch.equal(kept.gain, gain) and not kept.forced.any()


def test_fewer_modes_have_the_errors_and_gains_of_those_that_they_are_made_of(climatology):
    """By hand for one wavenumber: errors' plain mean, gains' mean weighted by variance."""
    level = climatology.eigenvalues
    gain = torch.linspace(0.4, 1.0, len(level))
    error = RegressedErrors(climatology, level * torch.linspace(0.1, 0.8, len(level)), gain)
    least = float(level[: sum(climatology.ranks)].median())
    fewer, found = merged(error, climatology, least)
    assert fewer.same_basis(found) and 0 < sum(fewer.ranks) < sum(climatology.ranks)
    rank, size, tail = climatology.ranks[0], climatology.vectors[0].shape[0], sum(climatology.ranks)
    joins = (level[:rank] < least).nonzero().flatten().tolist()
    every = joins + [tail] * (size - rank)
    at = sum(fewer.ranks)
    assert found.eigenvalues[at] == pytest.approx(error.eigenvalues[every].mean().item(), rel=1e-5)
    weighted = (level[every] * gain[every]).sum() / level[every].sum()
    assert found.gain[at] == pytest.approx(weighted.item(), rel=1e-5)
    with pytest.raises(GapzooError, match="'merge' needs a prior"):
        merged(error, None, least)


def test_a_memory_needs_a_length_and_a_climate(climatology):
    error = errors(climatology, 0.1, 0.9)
    with pytest.raises(GapzooError, match="memory -1 days"):
        forgetting(error, climatology, 24, -1.0)
    other = SpectralCovariance(torch.ones(2, 4, 5))
    for basis, kind in ((None, error), (climatology, other)):
        with pytest.raises(GapzooError, match="in its modes"):
            forgetting(kind, basis, 24, 50.0)
