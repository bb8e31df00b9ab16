"""The hybrid form: with everything linear and Gaussian it is the Kalman update of Z Z^T + P."""

import pytest
import torch
from linear import EXACT, MEAN_ERROR, SCHEDULE, START, H, N, Probe, W, spectral, toy
from worlds import expect

from gapzoo.baselines.letkf import LETKF
from gapzoo.core import GapzooError
from gapzoo.diffusion import GaussianDenoiser
from gapzoo.diffusion.guidance import GaussianConstraint
from gapzoo.diffusion.prior import Prior
from gapzoo.tasks.assimilation import Assimilation
from gapzoo.tasks.flow import point_deviation

STATIC, M = 0.2, 6


class Points:
    """Observes grid points; knows its places, as a filter wants."""

    def __init__(self, places: list[int]) -> None:
        self.places = torch.tensor(places)
        self.latitude = self.longitude = torch.zeros(len(places))
        self.channel = torch.zeros(len(places), dtype=torch.long)

    def __len__(self) -> int:
        return len(self.places)

    def __call__(self, x):
        return x.flatten(1)[:, self.places]


def test_mean_and_covariance_are_the_kalman_filters():
    """Of the ensemble's own covariance and a static one, under a prior that says nothing."""
    world = toy()
    wide = Prior(GaussianDenoiser(torch.zeros(1, H, W), spectral([1e3] * 3), SCHEDULE))
    task = Assimilation(
        prior=wide,
        world=world.world,
        sampling=EXACT,
        forecaster=world.forecaster,
        form="hybrid",
        error=spectral([STATIC] * 3),
        filter=LETKF(),
    )
    members = torch.randn(M, 1, H, W, generator=torch.Generator().manual_seed(0))
    points, y, r = Points([1, 4, 6]), torch.tensor([1.0, -0.5, 0.7]), 0.3
    seen = GaussianConstraint(points, y[None], r)
    drawn = task.analyse(START, Probe(torch.zeros(M, N)), seen, forecast=members)
    x = members.flatten(1).double()
    p = torch.cov(x.T) + STATIC * torch.eye(N)
    h = torch.eye(N, dtype=torch.float64)[points.places]
    gain = p @ h.T @ (h @ p @ h.T + r * torch.eye(3)).inverse()
    mean, covariance = x.mean(0) + gain @ (y - h @ x.mean(0)), p - gain @ h @ p
    inner = (torch.eye(N) / STATIC + h.T @ h / r).inverse()  # of each draw, all alike
    found = drawn.flatten(1).double()
    assert (found.mean(0) - mean).abs().max() < 6 * MEAN_ERROR
    alone = x.mean(0) + STATIC / (STATIC + r) * h.T @ (y - h @ x.mean(0))
    assert (alone - mean).abs().max() > 0.3, "a test that could not tell would be none"
    assert (torch.cov(found.T) + inner - covariance).abs().max() < 0.01


def test_the_static_deviation_is_that_of_each_row():
    deviation = point_deviation(spectral([1.0, 2.0, 0.5]), (1, H, W))
    assert deviation.shape == (1, H, W)
    assert deviation[0, 0, 0].item() == pytest.approx(((1 + 4 + 0.5) / 4) ** 0.5, rel=0.1)


def test_a_hybrid_without_a_filter_is_refused():
    world = toy()
    with expect(GapzooError, "form 'hybrid' needs a filter"):
        Assimilation(
            prior=world.prior,
            world=world.world,
            sampling=EXACT,
            forecaster=world.forecaster,
            form="hybrid",
            error=spectral([1.0] * 3),
        )
