"""Observations of several times: the smoother's exact answer, and departures at their own time."""

import dataclasses

import pandas as pd
import torch
from linear import (
    ERROR,
    EXACT,
    MEAN_ERROR,
    SPREAD_ERROR,
    START,
    H,
    N,
    Probe,
    W,
    moments,
    probe,
    toy,
)
from worlds import expect

from gapzoo.core import GapzooError, MemberGenerator
from gapzoo.diffusion.guidance import GaussianConstraint
from gapzoo.forecasters.base import Forecaster
from gapzoo.tasks import Sampling
from gapzoo.tasks.assimilation import Assimilation, Step
from gapzoo.tasks.windows import Timed, at_start, first_guess

Y = torch.tensor([[1.0, -0.5, 0.7], [0.4, 0.0, 0.1], [-1.0, 0.3, 0.6]])
DAYS = pd.date_range(START, periods=3, freq="D")


def task(world, **changes):
    settings = {"form": "gaussian", "error": ERROR, "sampling": EXACT} | changes
    return Assimilation(
        prior=world.prior, world=world.world, forecaster=world.forecaster, **settings
    )


def test_a_window_after_the_analysis_is_the_kalman_smoother():
    """Mean and covariance at the start, given a forecast and observations of three days; carried
    to the end they are the filter's."""
    world = toy()
    forecast = torch.randn(1, 1, H, W, generator=torch.Generator().manual_seed(0))
    seen = [Timed(t, world.observed(y)) for t, y in zip(DAYS, Y, strict=True)]
    observed = [*first_guess(seen, START, forecast, {}), *at_start(seen, START, world.forecaster)]
    many = forecast.expand(N + 1, -1, -1, -1)
    mean, covariance = moments(task(world).analyse(START, probe(), observed, forecast=many))
    model, parts = world.forecaster.matrix(), [world.of_forecast(forecast)]
    passed = torch.eye(N, dtype=torch.float64)
    for y in Y:
        information, vector = world.of_stations(y)
        parts.append((passed.T @ information @ passed, passed.T @ vector))
        passed = model @ passed
    known = world.gauss(*parts)
    assert (mean - known[0]).abs().max() < 2 * MEAN_ERROR
    assert (covariance - known[1]).abs().max() < SPREAD_ERROR
    alone, _ = world.gauss(*parts[:2])
    assert (known[0] - alone).abs().max() > 0.2, "a test that could not tell would be none"


def test_a_window_before_the_analysis_compares_at_the_observations_time():
    """y - H f(t_k) is the departure whose increment is made at the analysis."""
    world = toy()
    members = torch.randn(3, 1, H, W, generator=torch.Generator().manual_seed(1))
    still, between = Probe(torch.zeros(3, N)), START + pd.Timedelta(hours=12)
    step = Step(DAYS[1], world.observed(Y[1]), window=(Timed(between, world.observed(Y[0])),))
    step = dataclasses.replace(step, before=Step(START))
    (found,) = task(world).cycle([step], still, start=members)
    there = world.forecaster.step(members, START, 12)
    here = world.forecaster.step(there, between, 12)
    assert torch.equal(found.forecast, here)
    for k in range(3):
        shift = (here[k] - there[k]).flatten() @ world.stations.T
        early, late = world.of_stations(Y[0] + shift), world.of_stations(Y[1])
        known, _ = world.gauss(early, late, world.of_forecast(here[k]))
        assert (found.analysis[k].flatten() - known).abs().max() < 2 * MEAN_ERROR


def test_windows_restart_alike():
    world = toy(noise=0.1)
    settings = {"sampling": Sampling(steps=4)}

    def step(n):
        early = Timed(DAYS[n] - pd.Timedelta(hours=6), world.observed(Y[n]))
        return Step(DAYS[n], world.observed(Y[n]), window=(early,))

    whole = list(task(world, **settings).cycle([step(n) for n in range(3)], MemberGenerator(5, 3)))
    again = dataclasses.replace(step(2), before=step(1))
    (resumed,) = task(world, **settings).cycle(
        [again], MemberGenerator(5, 3), start=whole[1].analysis
    )
    assert torch.equal(resumed.analysis, whole[2].analysis)


class Frozen(Forecaster):
    """Keeps no gradient, as a numerical model."""

    def step(self, state, time, hours, forcing=None, generator=None):
        return state.detach()


def test_what_a_window_cannot_do_is_named():
    world = toy()
    later = [Timed(DAYS[1], world.observed(Y[1]))]
    observed = at_start(later, START, Frozen(world.world))
    with expect(GapzooError, "Frozen cannot be differentiated"):
        task(world, form="none").analyse(START, Probe(torch.zeros(1, N)), observed)
    correlated = GaussianConstraint(lambda x: x, torch.zeros(1, 1, H, W), ERROR)
    with expect(GapzooError, "independent Gaussian errors"):
        at_start([Timed(DAYS[1], correlated)], START, world.forecaster)
