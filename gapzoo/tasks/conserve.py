"""Conservation of dry air as a constraint of the sampler, on the same footing as observations.

The mass of dry air of an atmosphere on sigma levels, as a global-mean surface pressure,

    p_d = < p_s (1 - sum_k q_k dsigma_k) >,      N(p_d*; p_d(x), error^2),

is one observation of the whole state with a small error, linearised by the guidance around each
estimate. On a world without humidity or sigma levels it is < p_s > alone. The target p_d* is that
of the climatology's mean state, so that no drift can gather however long the run.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from gapzoo.core import GapzooError
from gapzoo.core.pressure import GRAVITY
from gapzoo.core.world import World
from gapzoo.diffusion.guidance import GaussianConstraint
from gapzoo.evaluators.conservation import dry_mass, sigma_thickness
from gapzoo.tasks.rollout import Observe


class DryPressure:
    """Global-mean surface pressure of dry air, Pa.

    Args:
        world: with surface pressure.

    Raises:
        GapzooError: where the world has no surface pressure.
    """

    def __init__(self, world: World) -> None:
        channels = world.channels
        names = {c.variable for c in channels}
        if "surface_pressure" not in names:
            raise GapzooError(f"{world.name} has no 'surface_pressure': its mass is not known")
        self.world, self.pressure = world, channels.of("surface_pressure")
        moist = channels.level_kind == "sigma" and "specific_humidity" in names
        self.humidity = channels.of("specific_humidity") if moist else []
        levels = [channels[i].level or 0.0 for i in self.humidity]
        self.dsigma = torch.as_tensor(sigma_thickness(levels)) if moist else None
        self.weights = torch.from_numpy(world.grid.area_weights)[:, None] / world.grid.shape[1]
        self.weights = self.weights / world.grid.shape[0]

    def __call__(self, physical: Tensor) -> Tensor:
        """(...) of states (..., C, H, W) in SI units, float64."""
        pressure = physical[..., self.pressure[0], :, :].double()
        if self.dsigma is not None:
            state = {"surface_pressure": pressure}
            state["specific_humidity"] = physical[..., self.humidity, :, :].double()
            pressure = dry_mass(state, self.dsigma.to(pressure)) * GRAVITY
        return (pressure * self.weights.to(pressure)).sum((-2, -1))

    @property
    def climate(self) -> float:
        """Of the climatology's annual mean, Pa."""
        coefficients = self.world.climatology.mean_coefficients
        return float(self(torch.from_numpy(np.asarray(coefficients[0]))))


def conserved(world: World, error: float = 10.0, target: float | None = None) -> Observe:
    """The constraint for a roll-out's members.

    Args:
        world: of the states.
        error: standard deviation of the global mean, Pa.
        target: Pa; that of the climatology where None.
    """
    if error <= 0:
        raise GapzooError(f"an error of the dry mass of {error:g} Pa; it must be positive")
    mass = DryPressure(world)
    aim = mass.climate if target is None else target
    used = [*mass.pressure, *mass.humidity]
    std = world.std[used]

    def observe(times: pd.DatetimeIndex) -> GaussianConstraint:
        unique, rows = np.unique(times, return_inverse=True)
        mean = world.mean(pd.DatetimeIndex(unique))[:, used][rows]

        def misfit(z: Tensor) -> Tensor:
            some = z[:, used] * std.to(z) + mean.to(z)
            physical = torch.zeros_like(z).index_copy(1, _at(used, z), some)
            return ((mass(physical)[:, None] - aim) / error).to(z)

        return GaussianConstraint(misfit, torch.zeros(1, 1), 1.0)

    return observe


def _at(positions: list[int], like: Tensor) -> Tensor:
    return torch.tensor(positions, device=like.device)
