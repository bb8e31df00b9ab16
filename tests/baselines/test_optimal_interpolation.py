import math

import numpy as np
import pytest
import torch

from gapzoo.baselines import BASELINES
from gapzoo.baselines.localisation import channel_taper, chord, gaspari_cohn
from gapzoo.core import Channels, GapzooError, Grid, MemberGenerator
from gapzoo.data.observations import ColumnStations, build_operator, simulate

GRID = Grid(np.arange(10) * 18 - 81.0, np.arange(12) * 30.0)
CHANNELS = Channels(["temperature@0.3", "temperature@0.8", "surface_pressure"], "sigma")
SHAPE = (3, 10, 12)


def climate(count: int, seed: int) -> torch.Tensor:
    """Smooth correlated Gaussian states (count,C,H,W), unequal variances, mean 3."""
    g = torch.Generator().manual_seed(seed)
    modes = torch.Generator().manual_seed(99)
    basis = torch.randn(40, *SHAPE, generator=modes)
    basis = basis + basis.roll(1, -1) + basis.roll(2, -1) + basis.roll(1, -2)
    weights = torch.randn(count, 40, generator=g) * torch.linspace(1, 0.05, 40)
    return 3 + torch.einsum("sk,kchw->schw", weights, basis)


def network(seed: int = 0):
    rng = np.random.default_rng(seed)
    variable = np.array(["temperature"] * 10 + ["surface_pressure"] * 5)
    level = np.where(variable == "temperature", rng.uniform(0.3, 0.8, 15), np.nan)
    operator = build_operator(
        GRID, CHANNELS, rng.uniform(-89, 89, 15), rng.uniform(0, 360, 15), variable, level
    )
    return operator, torch.linspace(0.2, 1.0, 15)


def build(sample, **kwargs):
    return BASELINES.build(
        "optimal_interpolation", sample=sample, grid=GRID, channels=CHANNELS, **kwargs
    )


def dense_blue(prior, operator, errors, y):
    """x_a by the textbook, with full matrices in double precision."""
    x = prior.sample.double().flatten(1)
    cov = torch.cov(x.T) * prior.inflation
    where = prior.locality
    horizontal = gaspari_cohn(chord(where.points, where.points), where.length)
    horizontal = where.tail + (1 - where.tail) * horizontal
    between = torch.ones(3, 3) if where.channel_taper is None else where.channel_taper
    cov = cov * torch.kron(between.double(), horizontal)
    unit = torch.eye(x.shape[1], dtype=torch.float64).unflatten(-1, SHAPE)
    h = operator(unit).T
    gain = cov @ h.T @ torch.linalg.inv(h @ cov @ h.T + torch.diag(errors.double() ** 2))
    return (x.mean(0) + (y.double() - x.mean(0) @ h.T) @ gain.T).unflatten(-1, SHAPE)


@pytest.mark.parametrize("inflation", [1.0, 1.3])
def test_equals_the_dense_blue_without_localisation(inflation):
    operator, errors = network()
    prior = build(climate(60, 0), length=math.inf, inflation=inflation)
    y = simulate(climate(4, 1), operator, errors, 2)
    expected = dense_blue(prior, operator, errors, y)
    gain = prior.network(operator, errors)
    for _ in range(2):  # afresh, then from the kept blocks
        torch.testing.assert_close(gain.analyse(y).double(), expected, atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("tail", [0.0, 0.2])
def test_equals_the_dense_blue_with_localisation_at_grid_points(tail):
    # At grid points the taper in observation space is that of the state: equal to rounding.
    columns = torch.tensor([[0, 0], [1, 11], [4, 5], [9, 6], [6, 2]])
    operator = ColumnStations.at(columns, GRID, CHANNELS)
    errors = torch.full((15,), 0.5)
    prior = build(climate(30, 0), length=1.2e6, vertical=0.7, cross=0.5, tail=tail)
    expected = channel_taper(CHANNELS, 0.7, 0.5)
    assert torch.equal(prior.locality.channel_taper, expected)
    y = simulate(climate(3, 1), operator, errors, 2)
    analysis = prior.network(operator, errors).analyse(y).double()
    torch.testing.assert_close(
        analysis, dense_blue(prior, operator, errors, y), atol=2e-4, rtol=1e-4
    )


def test_members_spread_equals_error_and_mean_is_the_blue():
    operator, errors = network()
    prior = build(climate(3000, 0), length=math.inf)
    truth = climate(60, 7)
    y = simulate(truth, operator, errors, 3)
    gain = prior.network(operator, errors)
    members = gain.members(y, MemberGenerator(0, 30))
    assert members.shape == (60, 30, *SHAPE)
    error = (members.mean(1) - truth).square().mean()
    spread = members.var(1).mean() * (1 + 1 / 30)
    # 60 cases with some 10 degrees of freedom each: 3 standard errors of the ratio are 0.12.
    assert abs(spread / error - 1) < 0.12
    far = (members.mean(1) - gain.analyse(y)).square().mean() / members.var(1).mean()
    assert abs(far * 30 - 1) < 0.12
    climatology = (truth - prior.mean).square().mean()
    assert error < 0.75 * climatology


def test_member_k_is_the_same_alone():
    operator, errors = network()
    gain = build(climate(50, 0)).network(operator, errors)
    y = simulate(climate(2, 1), operator, errors, 2)
    together = gain.members(y, MemberGenerator(4, 5))
    alone = gain.members(y, MemberGenerator(4, [3]))
    torch.testing.assert_close(together[:, 3:4], alone, atol=1e-5, rtol=1e-5)


def test_bad_sample_is_refused():
    with pytest.raises(GapzooError, match=r"at least 2 states \(3, 10, 12\)"):
        build(torch.zeros(5, 3, 10, 11))
