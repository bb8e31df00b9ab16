"""The preconditioner of soundings against dense matrices."""

import numpy as np
import pytest
import torch

from gapzoo.core import Channels, Grid
from gapzoo.data.observations import ColumnStations
from gapzoo.diffusion.guidance.constraint import GaussianConstraint, Identity, Stack
from gapzoo.diffusion.guidance.precondition import Preconditioner
from gapzoo.diffusion.zonal import ZonalCovariance

GRID = Grid(np.array([-60.0, -20.0, 20.0, 60.0]), np.arange(8) * 45.0)
CHANNELS = Channels(["temperature@0.3", "temperature@0.8", "surface_pressure"], "sigma")
SHAPE = (3, 4, 8)
SIZE = 96


@pytest.fixture(scope="module")
def climate():
    """Levels and latitudes with much in common."""
    noise = torch.randn(400, *SHAPE, generator=torch.Generator().manual_seed(0))
    common = noise.mean(1, keepdim=True) + 0.5 * noise.mean(1, keepdim=True).roll(1, -1)
    return ZonalCovariance.fit([4 * common + 0.3 * noise], threshold=0.01)


def dense(covariance):
    return covariance.apply(torch.eye(SIZE).reshape(SIZE, *SHAPE)).flatten(1).double()


def problem(columns, forecast=None):
    """Stacked constraints around 0, H (N,SIZE) and R (N,N)."""
    operator = ColumnStations.at(torch.tensor(columns), GRID, CHANNELS)
    variance = torch.linspace(0.05, 0.2, len(operator))
    y = torch.randn(2, len(operator), generator=torch.Generator().manual_seed(1))
    parts = [GaussianConstraint(operator, y, variance)]
    if forecast is not None:
        parts.append(GaussianConstraint(Identity(), torch.zeros(2, *SHAPE), forecast))
    h = torch.zeros(len(operator), SIZE).double()
    h[torch.arange(len(operator)), operator.index.flatten()] = 1.0
    around = torch.zeros(2, *SHAPE)
    return Stack([c.linearise(around) for c in parts]), h, torch.diag(variance).double()


def solved(climate, columns, ratio, iterations, share=None):
    """Weights of the observations, by the solver and by dense algebra."""
    level = climate.eigenvalues
    error = None if share is None else climate.with_eigenvalues(share * level)
    stack, h, r = problem(columns, error)
    solver = Preconditioner(stack, torch.tensor([[[[ratio]]]]), climate, iterations=iterations)
    d = stack.innovation
    found = solver.shift(d).flatten(1).double()
    left = ratio**2 * level / (ratio**2 + level)
    if error is not None:
        left = left * error.eigenvalues / (left + error.eigenvalues)
    w = dense(climate.with_eigenvalues(left))
    d = d[:, : len(h)].double()
    return found, d @ torch.linalg.inv(h @ w @ h.T + r) @ h @ w


@pytest.mark.parametrize("share", [None, 0.1])
@pytest.mark.parametrize("ratio", [0.5, 50.0])
def test_one_sounding_takes_one_iteration(climate, ratio, share):
    found, expected = solved(climate, [[1, 3]], ratio, 1, share)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


def test_several_take_few_where_scaling_by_their_errors_takes_many(climate, monkeypatch):
    columns = [[0, 0], [1, 4], [2, 2], [3, 6]]
    found, expected = solved(climate, columns, 50.0, 5)
    assert (found - expected).norm() < 0.01 * expected.norm()
    monkeypatch.setattr(Preconditioner, "_by_place", [None])
    found, expected = solved(climate, columns, 50.0, 5)
    assert (found - expected).norm() > 0.03 * expected.norm()
