"""Analyses against exact answers; the cycle against the Kalman filter; restarts to the bit."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
from linear import (
    CLIMATE,
    ERROR,
    EXACT,
    MEAN_ERROR,
    SPREAD_ERROR,
    START,
    H,
    N,
    Probe,
    W,
    matrix,
    moments,
    probe,
    toy,
)
from worlds import expect, toy_archive

from gapzoo.core import GapzooError, MemberGenerator
from gapzoo.data.module import Reader, world_of
from gapzoo.data.observations import station_columns
from gapzoo.diffusion import GaussianConstraint
from gapzoo.diffusion.covariance import DenseCovariance, SpectralCovariance
from gapzoo.tasks import Sampling
from gapzoo.tasks.assimilation import Assimilation, Step, constraint

Y = torch.tensor([[1.0, -0.5, 0.7], [0.4, 0.0, 0.1], [-1.0, 0.3, 0.6], [0.2, 0.2, -0.8]])


def rng(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def task(world, **changes):
    settings = {"form": "gaussian", "error": ERROR, "sampling": EXACT} | changes
    return Assimilation(
        prior=world.prior, world=world.world, forecaster=world.forecaster, **settings
    )


def steps(world, count=4, forcing=None):
    times = pd.date_range(START, periods=count, freq="D")
    return [Step(t, world.observed(y), forcing) for t, y in zip(times, Y[:count], strict=True)]


def test_an_analysis_is_the_exact_posterior():
    world = toy()
    mean, covariance = moments(task(world).analyse(START, probe(), world.observed(Y[0])))
    known = world.gauss(world.of_stations(Y[0]))
    assert (mean - known[0]).abs().max() < MEAN_ERROR
    assert (covariance - known[1]).abs().max() < SPREAD_ERROR


def test_each_members_forecast_is_weighed_by_the_error_covariance():
    """``gaussian``: member k is centred on the posterior of its own forecast."""
    world = toy()
    forecasts = torch.randn(3, 1, H, W, generator=rng(0))
    still = Probe(torch.zeros(3, N))
    drawn = task(world).analyse(START, still, world.observed(Y[0]), forecast=forecasts)
    for member, forecast in zip(drawn, forecasts, strict=True):
        known, _ = world.gauss(world.of_stations(Y[0]), world.of_forecast(forecast))
        assert (member.flatten() - known).abs().max() < MEAN_ERROR
    many = torch.cat([forecasts[:1]] * (N + 1))
    _, covariance = moments(
        task(world).analyse(START, probe(), world.observed(Y[0]), forecast=many)
    )
    known = world.gauss(world.of_stations(Y[0]), world.of_forecast(forecasts[0]))[1]
    assert (covariance - known).abs().max() < SPREAD_ERROR


def test_the_mean_of_a_few_members_has_no_noise_of_theirs():
    """``centred``: it is what members without noise have, where else five members leave it off."""
    world, forecasts = toy(), torch.randn(5, 1, H, W, generator=rng(0))
    still, off, spread = Probe(torch.zeros(5, N)), {}, {}
    for centred in (True, False):
        settings = {"form": "mean", "sampling": dataclasses.replace(EXACT, batch=2)}
        one = task(world, centred=centred, **settings)
        given = {"observations": world.observed(Y[0]), "forecast": forecasts}
        known = one.analyse(START, still, **given)[0]
        draws = [one.analyse(START, MemberGenerator(k, 5), **given) for k in range(20)]
        off[centred] = max(float((drawn.mean(0) - known).abs().max()) for drawn in draws)
        spread[centred] = float(torch.stack([drawn.var(0).mean() for drawn in draws]).mean())
    assert off[True] < MEAN_ERROR < 0.2 < off[False]
    assert spread[True] == pytest.approx(spread[False], rel=0.2)


def test_the_cycle_of_means_is_the_kalman_filter():
    """``mean``, everything observed: mean and covariance by the filter's own recursion.

    The climate is one more observation at every analysis; model error is ERROR. The noise is
    +-e_k, scaled so that the sample covariance of any linear map of it is that map's own.
    """
    world, variance = toy(), 0.4
    noise = torch.cat([torch.eye(N), -torch.eye(N)]) * np.sqrt((2 * N - 1) / 2)
    whole = lambda y: GaussianConstraint(lambda x: x.flatten(1), y.flatten()[None], variance)  # noqa: E731
    ys = torch.randn(3, N, generator=rng(3))
    times = pd.date_range(START, periods=3, freq="D")
    cycle = task(world, form="mean").cycle(
        [Step(t, whole(y)) for t, y in zip(times, ys, strict=True)], Probe(noise)
    )
    a, q, climate = world.forecaster.matrix(), matrix(ERROR), matrix(CLIMATE).inverse()
    seen = torch.eye(N, dtype=torch.float64) / variance
    mean, covariance = None, None
    for y, found in zip(ys.double(), cycle, strict=True):
        information, vector = climate + seen, seen @ y
        if mean is not None:
            forecast = (a @ covariance @ a.T + q).inverse()
            information, vector = information + forecast, vector + forecast @ (a @ mean)
        covariance = information.inverse()
        mean = covariance @ vector
        drawn = found.analysis.flatten(1).double()
        assert (drawn.mean(0) - mean).abs().max() < 4 * MEAN_ERROR
        assert (torch.cov(drawn.T) - covariance).abs().max() < SPREAD_ERROR


def test_the_cycle_of_members_carries_each_mean_exactly():
    """``gaussian`` with still noise: m_n = S (P^-1 A m_(n-1) + H^T R^-1 y_n)."""
    world = toy()
    mean, last = None, torch.zeros(1, 1, H, W)
    for y, found in zip(Y, task(world).cycle(steps(world), Probe(torch.zeros(1, N))), strict=True):
        parts = [world.of_stations(y)]
        if mean is not None:
            assert torch.allclose(found.forecast[0], world.forecaster.step(last, START, 24)[0])
            parts.append(world.of_forecast(world.forecaster.matrix() @ mean))
        mean, _ = world.gauss(*parts)
        last = found.analysis
        assert (last.flatten() - mean).abs().max() < 3 * MEAN_ERROR


@pytest.mark.parametrize("form", ["gaussian", "renoise", "mean", "none"])
def test_restarted_equals_uninterrupted(form):
    world = toy()
    settings = {"form": form, "sampling": Sampling(steps=5, sampler="stochastic")}
    plan = steps(world, forcing=np.full((1, H, W), 0.1))
    whole = list(task(world, **settings).cycle(plan, MemberGenerator(5, 3)))
    again = dataclasses.replace(plan[2], before=plan[1])
    resumed = task(world, **settings).cycle(
        [again, plan[3]], MemberGenerator(5, 3), start=whole[1].analysis
    )
    for old, new in zip(whole[2:], resumed, strict=True):
        assert old.time == new.time
        assert torch.equal(old.forecast, new.forecast)
        assert torch.equal(old.analysis, new.analysis)


def test_a_cycle_with_a_stochastic_forecaster_restarts_alike():
    world = toy(noise=0.1)
    settings = {"sampling": Sampling(steps=4)}
    plan = steps(world)
    whole = list(task(world, **settings).cycle(plan, MemberGenerator(5, 3)))
    first = dataclasses.replace(plan[2], before=plan[1])
    resumed = next(
        task(world, **settings).cycle([first], MemberGenerator(5, 3), start=whole[1].analysis)
    )
    assert torch.equal(resumed.analysis, whole[2].analysis)


@pytest.mark.parametrize("form", ["gaussian", "renoise", "none"])
def test_a_member_alone_equals_itself_among_many(form):
    world = toy()
    settings = {"form": form, "sampling": Sampling(steps=5)}
    many = list(task(world, **settings).cycle(steps(world), MemberGenerator(5, 4)))
    alone = list(task(world, **settings).cycle(steps(world), MemberGenerator(5, [2])))
    for old, new in zip(many, alone, strict=True):
        assert torch.allclose(old.analysis[2], new.analysis[0], atol=1e-4)
    assert (many[0].analysis[1] - many[0].analysis[2]).abs().max() > 0.1


def test_forcing_reaches_the_forecaster_of_the_step_it_belongs_to():
    """The forcing before the carry, not after it."""
    world = toy()
    plan = steps(world, 2)
    plan[0] = dataclasses.replace(plan[0], forcing=np.full((1, H, W), 3.0))
    plan[1] = dataclasses.replace(plan[1], forcing=np.full((1, H, W), -7.0))
    first, second = task(world, sampling=Sampling(steps=4)).cycle(plan, MemberGenerator(0, 2))
    expected = 0.9 * first.analysis.roll(1, -1) + 3.0
    assert torch.allclose(second.forecast, expected)


def test_a_constraint_is_the_observation_equation_in_its_errors(tmp_path):
    """(H x - y) / e of a state in SI units, whatever the world's normalisation."""
    archive = toy_archive(tmp_path / "toy.zarr", end="1979-12-31")
    world = world_of(archive)
    stations = station_columns(world.grid, world.channels, 0.2, 0)
    errors = torch.linspace(0.5, 3.0, len(stations))
    y = torch.randn(len(stations), generator=rng(1))
    here, time = np.array([77]), archive.times[77]
    reader = Reader(archive, world)
    observed = constraint(world, stations, y, errors, time)
    residual = observed.linearise(reader.state(here)).innovation[0]
    expected = (y - stations(reader.physical(here)[0])) / errors
    assert torch.allclose(residual, expected, rtol=1e-5, atol=2e-2)  # of 98000 Pa / 0.5
    assert torch.equal(observed.noise.eigenvalues, torch.tensor(1.0))


def test_correlated_errors_weigh_as_their_whole_covariance():
    """R = D C D against the exact posterior; independent errors would give another."""
    world = toy()
    net = station_columns(world.world.grid, world.world.channels, 0.5, 0)
    errors = torch.tensor([0.3, 0.5, 0.4, 0.6])
    lag = (torch.arange(4)[:, None] - torch.arange(4)).abs()
    correlation, y = 0.8 ** lag.float(), torch.tensor([1.0, -0.5, 0.7, 0.2])
    seen = constraint(world.world, net, y, errors, START, DenseCovariance(correlation))
    mean, covariance = moments(task(world, form="none").analyse(START, probe(), seen))
    a = net(torch.eye(N).reshape(N, 1, H, W)).T.double()
    r = (errors[:, None] * correlation * errors).double()
    known = world.gauss((a.T @ r.inverse() @ a, a.T @ r.inverse() @ y.double()))
    assert (mean - known[0]).abs().max() < 2 * MEAN_ERROR
    assert (covariance - known[1]).abs().max() < SPREAD_ERROR
    own = (a.T @ (a / (errors**2)[:, None]), a.T @ (y / errors**2).double())
    assert (world.gauss(own)[0] - known[0]).abs().max() > 0.1
    with expect(GapzooError, "either correlated or heavy-tailed"):
        constraint(world.world, net, y, errors, START, DenseCovariance(correlation), 4.0)


def test_the_ensembles_own_spread_is_added_to_the_error():
    """``mean``: as one forecast, the mean, with ERROR and the ensemble's covariance together."""
    world = toy()
    members = 2 + 3 * torch.randn(6, 1, H, W, generator=rng(2))
    mean = members.mean(0, keepdim=True)
    own = SpectralCovariance.estimate(members - mean).eigenvalues * 6 / 5
    total = ERROR.with_eigenvalues(ERROR.eigenvalues + own)
    known, _ = world.gauss(world.of_forecast(mean, total))
    still = Probe(torch.zeros(6, N))
    drawn = task(world, form="mean").analyse(START, still, forecast=members)
    assert (drawn.flatten(1) - known).abs().max() < MEAN_ERROR
    alone, _ = world.gauss(world.of_forecast(mean))
    assert (known - alone).abs().max() > 0.3, "a test that could not tell would be none"


def test_bad_input_is_named():
    world = toy()
    with expect(GapzooError, "form 'gausian'; did you mean 'gaussian'?"):
        task(world, form="gausian")
    with expect(GapzooError, "form 'mean' needs the forecaster's error covariance"):
        task(world, form="mean", error=None)
    with expect(GapzooError, "a cycle needs a forecaster"):
        bare = Assimilation(prior=world.prior, world=world.world, sampling=EXACT, form="none")
        next(bare.cycle(steps(world), MemberGenerator(0, 1)))
    with expect(GapzooError, "a restart needs the first step's 'before'"):
        next(task(world).cycle(steps(world), MemberGenerator(0, 1), torch.zeros(1, 1, H, W)))
    with expect(GapzooError, "an observation is not finite"):
        world.observed(torch.tensor([1.0, torch.nan, 0.0]))
    with expect(GapzooError, "forecast state", "finite"):
        broken = torch.full((1, 1, H, W), torch.nan)
        task(world).analyse(START, MemberGenerator(0, 1), forecast=broken)
