"""What the diffusion tests share: one stream for many draws, a small linear-Gaussian problem."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from gapzoo.core import MemberGenerator
from gapzoo.diffusion import DiagonalCovariance, GaussianConstraint, GaussianDenoiser, Schedule


class OneStream(MemberGenerator):
    """Thousands of members from one stream: quick where only the distribution matters."""

    def __init__(self, seed: int, count: int) -> None:
        self.count, self.stream = count, torch.Generator().manual_seed(seed)

    def __len__(self) -> int:
        return self.count

    def randn(self, shape) -> Tensor:
        return torch.randn(tuple(shape), generator=self.stream)


@dataclass
class Linear:
    """Prior N(mean, covariance) of 8 numbers, 3 observations y = A x + e, and the posterior."""

    mean: Tensor
    covariance: Tensor
    a: Tensor
    variance: Tensor
    y: Tensor

    def constraint(self, rows: slice = slice(None)) -> GaussianConstraint:
        a = self.a[rows]
        noise = DiagonalCovariance(self.variance[rows])
        return GaussianConstraint(lambda x: x.flatten(1) @ a.T.to(x), self.y[None, rows], noise)

    def posterior(self, forecast: Tensor | None = None, error: Tensor | None = None):
        """(mean (8,), covariance (8,8)) in float64, by the information form."""
        p, a, r = (v.double() for v in (self.covariance, self.a, self.variance))
        information = p.inverse() + a.T @ torch.diag(1 / r) @ a
        vector = p.inverse() @ self.mean.double() + a.T @ (self.y.double() / r)
        if forecast is not None and error is not None:
            information = information + error.double().inverse()
            vector = vector + error.double().inverse() @ forecast.double()
        covariance = information.inverse()
        return covariance @ vector, (covariance + covariance.T) / 2

    def prior(self, schedule: Schedule) -> GaussianDenoiser:
        return GaussianDenoiser(self.mean.reshape(8, 1, 1), self.covariance, schedule)

    def exact(self, schedule: Schedule, **forecast: Tensor) -> GaussianDenoiser:
        mean, covariance = self.posterior(**forecast)
        return GaussianDenoiser(mean.reshape(8, 1, 1), covariance, schedule)


@pytest.fixture
def linear() -> Linear:
    g = torch.Generator().manual_seed(1)
    root = torch.randn(8, 8, generator=g)
    covariance = root @ root.T / 8 + 0.1 * torch.eye(8)
    mean, a = torch.randn(8, generator=g), torch.randn(3, 8, generator=g) / 8**0.5
    variance = torch.tensor([0.05, 0.1, 0.2])
    x = mean + torch.linalg.cholesky(covariance) @ torch.randn(8, generator=g)
    y = a @ x + variance.sqrt() * torch.randn(3, generator=g)
    return Linear(mean, covariance, a, variance, y)


@pytest.fixture
def one_stream():
    return OneStream
