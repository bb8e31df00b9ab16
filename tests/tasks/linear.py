"""A linear world whose posteriors are known: Gaussian prior, linear forecaster, probing noise."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor
from worlds import flat_world

from gapzoo.core import MemberGenerator
from gapzoo.core.world import World
from gapzoo.diffusion import GaussianConstraint, GaussianDenoiser
from gapzoo.diffusion.covariance import SpectralCovariance
from gapzoo.diffusion.prior import Prior
from gapzoo.diffusion.schedules.edm import EDMSchedule
from gapzoo.forecasters.base import Forecaster
from gapzoo.tasks import Sampling

H, W = 2, 4
N = H * W
START = pd.Timestamp("1985-03-01")
EXACT = Sampling(sampler="dpmpp_2m", steps=64, guidance_options={"iterations": 3})
"""Deterministic, with the Krylov solver run to its end: what is left is the time step's error."""
MEAN_ERROR, SPREAD_ERROR = 2e-3, 0.03
"""Of the time step: means and entries of covariances near 1."""


SCHEDULE = EDMSchedule(sigma_max=500.0)
"""Sampling starts from N(0, sigma_max^2), which is off by the mean: far above it here."""


class Probe(MemberGenerator):
    """Not random: members get the rows of ``noise`` (M,N), the same at every call.

    A deterministic sampler of a linear-Gaussian posterior is an affine map of its noise, so the
    zero row gives its mean and the unit rows a root of its covariance, free of sampling error.
    """

    def __init__(self, noise: Tensor) -> None:
        super().__init__(0, len(noise))
        self.noise = noise

    def randn(self, shape) -> Tensor:
        if not self.noise.any():
            return torch.zeros(tuple(shape))
        return self.noise.reshape(shape).clone()

    def fork(self, *keys: object) -> Probe:
        return self

    def centred(self) -> Probe:
        return self

    def split(self, chunk: int) -> list[Probe]:
        return [Probe(part) for part in self.noise.split(chunk)]


def probe() -> Probe:
    """The zero noise and the N unit ones."""
    return Probe(torch.cat([torch.zeros(1, N), torch.eye(N)]))


def moments(draws: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (N,) and covariance (N,N) in float64 of what a probe drew."""
    flat = draws.flatten(1).double()
    root = flat[1:] - flat[0]
    return flat[0], root.T @ root


def matrix(covariance: SpectralCovariance) -> Tensor:
    """(N,N) of a spectral covariance on the H x W grid."""
    rows = covariance.apply(torch.eye(N).reshape(N, 1, H, W))
    return rows.flatten(1).double()


def spectral(values: list[float]) -> SpectralCovariance:
    """Variances by zonal wavenumber 0..W/2, alike at both latitudes."""
    return SpectralCovariance(torch.tensor(values).expand(1, H, W // 2 + 1).clone())


CLIMATE = spectral([1.0, 2.0, 0.5])
ERROR = spectral([0.1, 0.3, 0.2])


class Linear(Forecaster):
    """Turns the world eastwards by one point a step and damps it by ``factor``."""

    def __init__(self, world: World, factor: float = 0.9, noise: float = 0.0) -> None:
        super().__init__(world)
        self.factor, self.noise = factor, noise

    def step(self, state, time, hours, forcing=None, generator=None):
        self.check(state, hours)
        moved = self.factor * state.roll(1, -1)
        if forcing is not None:
            moved = moved + torch.tensor(forcing[:1]).to(moved)
        return moved + self.noise * generator.randn(state.shape) if self.noise else moved

    def matrix(self) -> Tensor:
        """(N,N)."""
        states = torch.eye(N).reshape(N, 1, H, W)
        return self.step(states, START, 24).flatten(1).T.double()


@dataclass
class Toy:
    """World, prior N(0, CLIMATE), forecaster, three stations."""

    world: World
    prior: Prior
    forecaster: Linear
    stations: Tensor  # (3, N)
    errors: Tensor  # (3,)

    def observed(self, y: Tensor) -> GaussianConstraint:
        a = self.stations
        return GaussianConstraint(lambda x: x.flatten(1) @ a.T, y[None], self.errors**2)

    def gauss(self, *parts: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """(mean, covariance) of the prior under constraints (A^T R^-1 A, A^T R^-1 y)."""
        information = matrix(CLIMATE).inverse() + sum(p for p, _ in parts)
        return information.inverse() @ sum(v for _, v in parts), information.inverse()

    def of_stations(self, y: Tensor) -> tuple[Tensor, Tensor]:
        a, r = self.stations.double(), (self.errors**2).double()
        return a.T @ (a / r[:, None]), a.T @ (y.double() / r)

    def of_forecast(self, f: Tensor, error: SpectralCovariance = ERROR) -> tuple[Tensor, Tensor]:
        precision = matrix(error).inverse()
        return precision, precision @ f.flatten().double()


def toy(factor: float = 0.9, noise: float = 0.0) -> Toy:
    world = flat_world(1, H, W)
    prior = Prior(GaussianDenoiser(torch.zeros(1, H, W), CLIMATE, SCHEDULE))
    stations = torch.zeros(3, N)
    stations[0, 1], stations[1, 3], stations[2, 5] = 1.0, 1.0, 1.0
    stations[2, 6] = 0.5  # between two points
    errors = torch.tensor([0.2, 0.5, 0.3])
    return Toy(world, prior, Linear(world, factor, noise), stations, errors)
