"""What no state may have: negative humidity, or far more vapour than saturates the air.

    0 <= q <= limit q_s(T, p),    q_s = 0.622 e_s / (p - 0.378 e_s)
    e_s = 610.8 exp(17.269 (T - 273.16) / (T - 35.86))   above freezing, over water
    e_s = 610.8 exp(21.875 (T - 273.16) / (T - 7.66))    below it, over ice

in Pa (Murray 1967, and SPEEDY). The prior's and the forecaster's errors are Gaussian, humidity is
not: where it is scarce a few spreads make it negative, and aloft, where it is rare, an error of
many spreads would be carried on. Applied to what a step yields, before it is kept. It suits worlds
whose own states keep to it: SPEEDY's do not (its spectral humidity is negative at 2 % of the points
near the ground and 70 % of those at sigma 0.1, and up to thirty times saturation there).
"""

from __future__ import annotations

import torch
from torch import Tensor

from gapzoo.core import Channel
from gapzoo.core.world import World

FREEZING = 273.16
PRESSURE = "surface_pressure"


def saturation(temperature: Tensor, pressure: Tensor) -> Tensor:
    """Specific humidity (kg/kg) of saturated air; K and Pa, of shapes that broadcast.

    One where the air is so thin that it boils (vapour pressure above half the pressure).
    """
    above = temperature - FREEZING
    water = 17.269 * above / (temperature - 35.86)
    ice = 21.875 * above / (temperature - 7.66).clamp(min=1.0)
    vapour = 610.8 * torch.where(above > 0, water, ice).exp()
    found = 0.622 * vapour / (pressure - 0.378 * vapour).clamp(min=1e-3)
    return torch.where(vapour < 0.5 * pressure, found, torch.ones_like(found))


class HumidityBounds:
    """Holds specific humidity within bounds; a world without it, or temperature, stays as it is.

    Args:
        world: of the states.
        limit: most humidity over saturation.
    """

    def __init__(self, world: World, limit: float = 1.2) -> None:
        self.limit, every = limit, world.channels
        self.sigma = every.level_kind == "sigma"
        self.pairs, labels = [], set(every.labels)
        for at, channel in enumerate(every):
            warm = Channel("temperature", channel.level).label
            if channel.variable == "specific_humidity" and warm in labels:
                self.pairs.append((at, every.index(warm), channel.level or 0.0))
        if self.sigma and PRESSURE not in labels:
            self.pairs = []
        self.surface = every.index(PRESSURE) if PRESSURE in labels else -1

    def __call__(self, physical: Tensor) -> Tensor:
        """States (..., C, H, W) in SI units within the bounds; others are handed back as given."""
        if not self.pairs:
            return physical
        out = physical.clone()
        for humid, warm, level in self.pairs:
            pressure = torch.full_like(physical[..., warm, :, :], 100.0 * level)
            if self.sigma:
                pressure = level * physical[..., self.surface, :, :]
            most = self.limit * saturation(physical[..., warm, :, :], pressure)
            out[..., humid, :, :] = physical[..., humid, :, :].clamp(min=0.0).minimum(most)
        return out
