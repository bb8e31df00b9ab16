"""Drawing from posteriors: members do not depend on their company; what fails says why."""

import numpy as np
import pytest
import torch
from linear import (
    CLIMATE,
    ERROR,
    EXACT,
    MEAN_ERROR,
    SPREAD_ERROR,
    H,
    W,
    matrix,
    moments,
    probe,
    toy,
)
from worlds import expect, grid_of

from gapzoo.core import Channels, GapzooError, MemberGenerator
from gapzoo.data.observations.nonlinear import ColumnIntegral, StationPressure, WindSpeed
from gapzoo.data.observations.profiles import Mixed, OnPressure
from gapzoo.diffusion import GaussianDenoiser
from gapzoo.diffusion.prior import GaussianForecast, Prior, RenoisedForecast
from gapzoo.diffusion.schedules.edm import EDMSchedule
from gapzoo.diffusion.zonal import RegressedErrors, ZonalCovariance
from gapzoo.tasks import Sampling
from gapzoo.tasks.sampling import placed

NAMES = [
    *(f"{v}@{s}" for v in ("u_component_of_wind", "v_component_of_wind") for s in (0.3, 0.9)),
    *(f"{v}@{s}" for v in ("temperature", "specific_humidity") for s in (0.3, 0.9)),
    "surface_pressure",
]

SHAPE = (1, H, W)


def test_the_prior_itself_is_drawn():
    mean, covariance = moments(EXACT.draw(toy().prior, SHAPE, probe()))
    assert mean.abs().max() < 1e-5
    assert (covariance - matrix(CLIMATE)).abs().max() < SPREAD_ERROR


def test_observations_and_forecast_give_the_exact_posterior():
    world = toy()
    y, f = torch.tensor([1.0, -0.5, 0.7]), torch.randn(1, 1, H, W, generator=rng(1))

    drawn = EXACT.draw(
        world.prior, SHAPE, probe(),
        observations=world.observed(y), forecast=GaussianForecast(f, ERROR),
    )  # fmt: skip
    mean, covariance = moments(drawn)
    known = world.gauss(world.of_stations(y), world.of_forecast(f))
    assert (mean - known[0]).abs().max() < MEAN_ERROR
    assert (covariance - known[1]).abs().max() < SPREAD_ERROR


def rng(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("sampler", ["dpmpp", "heun", "stochastic"])
def test_a_member_alone_equals_itself_among_many(sampler):
    """To rounding: batches of another size may add in another order."""
    world, y = toy(), torch.tensor([1.0, 0.0, -1.0])
    many = Sampling(sampler=sampler, steps=6, batch=8)
    given = {"observations": world.observed(y)}
    whole = many.draw(world.prior, SHAPE, MemberGenerator(3, 5), **given)
    for batch in (1, 2, 3):
        parts = Sampling(sampler=sampler, steps=6, batch=batch)
        again = parts.draw(world.prior, SHAPE, MemberGenerator(3, 5), **given)
        assert torch.allclose(again, whole, atol=2e-5)
    alone = many.draw(world.prior, SHAPE, MemberGenerator(3, [4]), **given)
    assert torch.allclose(alone[0], whole[4], atol=2e-5)
    assert (whole[3] - whole[4]).abs().max() > 0.1


def test_constraints_by_member_reach_their_member_in_every_batch():
    """Each member's own forecast, without error: each draws its own forecast back."""
    forecasts = torch.randn(5, *SHAPE, generator=rng(0))

    def own(rows):
        return GaussianForecast(forecasts[rows], 1e-6)

    for batch in (2, 5):
        drawn = Sampling(steps=8, batch=batch).draw(
            toy().prior, SHAPE, MemberGenerator(0, 5), forecast=own
        )
        assert (drawn - forecasts).abs().max() < 0.02


def test_a_renoised_forecast_is_where_sampling_starts():
    """Barely noised and denoised by the exact prior, a state comes back."""
    state = torch.randn(3, *SHAPE, generator=rng(2))
    forecast = lambda rows: RenoisedForecast(state[rows], 0.03)  # noqa: E731
    drawn = Sampling(steps=8).draw(toy().prior, SHAPE, MemberGenerator(0, 3), forecast=forecast)
    assert 0 < (drawn - state).abs().max() < 0.15


def test_a_prior_that_is_not_finite_names_members_and_settings():
    broken = Prior(GaussianDenoiser(torch.full(SHAPE, torch.nan), 1.0, EDMSchedule()))
    with expect(GapzooError, "members [0, 1]", "default", "3 steps", "take more steps"):
        Sampling(steps=3).draw(broken, SHAPE, MemberGenerator(0, 2))


def test_unknown_names_and_options_are_refused():
    draw = toy().prior, SHAPE, MemberGenerator(0, 1)
    with expect(GapzooError, "no sampler 'dpmp'; did you mean 'dpmpp'?"):
        Sampling(sampler="dpmp").draw(*draw)
    with expect(GapzooError, "sampler 'heun'", "'churn_rate'"):
        Sampling(sampler="heun", sampler_options={"churn_rate": 1}).draw(*draw)
    y = toy().observed(torch.zeros(3))
    with expect(GapzooError, "'mmp'; did you mean 'mmps'?"):
        Sampling(guidance="mmp").draw(*draw, observations=y)
    with expect(GapzooError, "'iteration'"):
        Sampling(guidance_options={"iteration": 1}).draw(*draw, observations=y)
    with expect(GapzooError, "steps is 0"):
        Sampling(steps=0).draw(*draw)


def test_constraints_go_to_the_device_that_the_prior_computes_on():
    """Every kind of operator; on another device than its input it would not compute."""
    grid, channels = grid_of(8, 16), Channels(NAMES, "sigma")
    north, east = np.array([10.0, -40.0, 75.0]), np.array([5.0, 100.0, 300.0])
    where, low = (grid, channels, north, east), np.full(3, 0.9)
    wind = WindSpeed.at(*where, low)
    column = ColumnIntegral.at(*where)
    pressure = StationPressure.at(*where, np.zeros(3), torch.zeros(8, 16))
    sonde = OnPressure.at(*where, np.full(3, "temperature"), np.full(3, 700.0))
    mixed = Mixed((wind, column, pressure, sonde), torch.arange(12).flip(0))
    x = torch.rand(2, len(channels), 8, 16) + 1.0
    same = placed(mixed, torch.device("cpu"))
    assert torch.equal(same(x), mixed(x)) and not x.is_meta
    there = x.to("meta")
    for operator in (*mixed.parts, mixed):
        found = placed(operator, there.device)(there)
        assert found.is_meta and found.shape == operator(x).shape
    forecast = placed(GaussianForecast(torch.zeros(1, 2, 4, 4), torch.ones(1)), torch.device("cpu"))
    assert isinstance(forecast, GaussianForecast)
    noise = MemberGenerator(3, 2)
    assert noise.to("meta").randn((2, 5)).is_meta and not noise.randn((2, 5)).is_meta


def test_a_basis_goes_to_a_device_once_for_all_covariances_in_it():
    """Tens of MB that every filter of every step reads."""
    own = ZonalCovariance.fit([torch.randn(6, 2, 4, 8)])
    there = torch.zeros(2, 2, 4, 8, device="meta")
    assert own.filter(there, lambda b: b).is_meta
    first = own.vectors_for(there)
    errors = RegressedErrors(own, 0.1 * own.eigenvalues, torch.ones_like(own.eigenvalues))
    for other in (own, own.with_eigenvalues(2 * own.eigenvalues), errors):
        other.filter(there, lambda b: 1 / b)
        assert other.vectors_for(there) is first
    assert own.vectors_for(torch.zeros(2, 2, 4, 8)) is own.vectors
