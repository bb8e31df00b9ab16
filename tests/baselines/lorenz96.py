"""Lorenz-96, twin experiments by seed: states (B,40) as (B,1,1,40), 40 variables, F = 8, RK4."""

from functools import cache

import torch
from torch import Tensor

from gapzoo.baselines.localisation import gaspari_cohn
from gapzoo.data.observations import LinearObservationOperator


def tendency(x: Tensor) -> Tensor:
    return (x.roll(-1, -1) - x.roll(2, -1)) * x.roll(1, -1) - x + 8.0


def step(x: Tensor, dt: float = 0.05) -> Tensor:
    k1 = tendency(x)
    k2 = tendency(x + dt / 2 * k1)
    k3 = tendency(x + dt / 2 * k2)
    k4 = tendency(x + dt * k3)
    return x + dt / 6 * (k1 + 2 * k2 + 2 * k3 + k4)


def run(x: Tensor, steps: int) -> Tensor:
    for _ in range(steps):
        x = step(x)
    return x


def start(count: int, generator: torch.Generator) -> Tensor:
    """(count,1,1,40) float64 states on the attractor."""
    x = 8 + 0.1 * torch.randn(count, 1, 1, 40, generator=generator, dtype=torch.float64)
    return run(x, 400)


@cache
def climate(count: int = 1000) -> Tensor:
    """States of the climate, (count,1,1,40)."""
    return start(count, torch.Generator().manual_seed(1))


def everything_observed() -> LinearObservationOperator:
    places = torch.arange(40)
    return LinearObservationOperator(
        index=places[:, None], weights=torch.ones(40, 1, dtype=torch.float64), shape=(1, 1, 40),
        latitude=torch.zeros(40), longitude=places * 9.0, channel=torch.zeros(40, dtype=torch.long),
    )  # fmt: skip


class Ring:
    """Gaspari-Cohn along the ring, ``length`` in grid points."""

    channel_taper = None

    def __init__(self, length: float) -> None:
        places = torch.arange(40.0)
        apart = (places[:, None] - places).abs()
        self.taper = gaspari_cohn(torch.minimum(apart, 40 - apart), length)

    def state_tiles(self, operator, points):
        yield torch.arange(40), torch.arange(40), self.taper

    def observation_tiles(self, operator):
        yield torch.arange(40), torch.arange(40), self.taper


def twin(analyse, members: int, seed: int, cycles: int = 600, spin_up: int = 200):
    """Mean analysis RMSE and spread of ``analyse(forecast, y, cycle)``: (M,1,1,40) -> the same."""
    g = torch.Generator().manual_seed(seed)
    truth = start(1, g)
    ensemble = truth + torch.randn(members, 1, 1, 40, generator=g, dtype=torch.float64)
    errors, spreads = [], []
    for cycle in range(cycles):
        truth, ensemble = step(truth), step(ensemble)
        y = truth.flatten() + torch.randn(40, generator=g, dtype=torch.float64)
        ensemble = analyse(ensemble, y, cycle)
        if cycle >= spin_up:
            errors.append((ensemble.mean(0) - truth[0]).square().mean().sqrt())
            if members > 1:
                spreads.append(ensemble.var(0).mean().sqrt())
    spread = torch.stack(spreads).mean().item() if spreads else 0.0
    return torch.stack(errors).mean().item(), spread
