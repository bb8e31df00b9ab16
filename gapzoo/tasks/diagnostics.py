"""What seasons and climates are looked at in: some two-dimensional fields of each state.

Z500, T850, U850, Q700 and mean sea level pressure of ``gapzoo.core.pressure``, surface pressure,
the temperature of the lowest level (``lowest_level_temperature``) and precipitation. A world that
some of these cannot be made of gives the others; one that gives none of them is looked at in its
own channels.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from gapzoo.core import Channel, Channels, GapzooError, nearest
from gapzoo.core.pressure import HEADLINE, to_pressure
from gapzoo.core.world import World

LOWEST = "lowest_level_temperature"
RAIN = "total_precipitation"
EVERY = (*HEADLINE, LOWEST, "surface_pressure")


@dataclass(frozen=True)
class Diagnostics:
    """Some fields of a world's states.

    Args:
        world: of the states.
        wanted: of ``EVERY`` or labels that ``to_pressure`` makes; None is all that can be made.

    Raises:
        GapzooError: where one that was asked for cannot be made.
    """

    world: World
    wanted: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        for label in self.wanted or ():
            if not self._makes(label):
                hint = nearest(label, self._possible)
                raise GapzooError(f"cannot make '{label}' of {self.world.name}; {hint}")

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """Of the fields, in order."""
        if self.wanted is not None:
            return self.wanted
        return self._possible or tuple(self.world.channels.labels)

    @cached_property
    def _possible(self) -> tuple[str, ...]:
        rain = [c.label for c in self.world.channels if c.variable.startswith(RAIN)]
        return tuple(label for label in (*EVERY, *rain) if self._makes(label))

    @cached_property
    def channels(self) -> Channels:
        """The fields as channels, on pressure levels unless they are the world's own."""
        own = self.labels == tuple(self.world.channels.labels)
        return Channels(self.labels, self.world.channels.level_kind if own else "pressure")

    @cached_property
    def lowest(self) -> int:
        """Position of the lowest level's temperature among the world's channels."""
        every = self.world.channels
        return max(every.of("temperature"), key=lambda i: every[i].level or 0.0)

    def __call__(self, physical: Tensor) -> Tensor:
        """Fields (..., V, H, W) of states (..., C, H, W), SI units."""
        if self.labels == tuple(self.world.channels.labels):
            return physical
        made = tuple(label for label in self.labels if label != LOWEST)
        fields = to_pressure(physical, self.world, made) if made else physical[..., :0, :, :]
        if LOWEST not in self.labels:
            return fields
        at, lowest = self.labels.index(LOWEST), physical[..., self.lowest, :, :]
        return torch.cat([fields[..., :at, :, :], lowest.unsqueeze(-3), fields[..., at:, :, :]], -3)

    def index(self, label: str) -> int:
        """Position of a field; the first where the world does not give it."""
        return self.labels.index(label) if label in self.labels else 0

    def units(self, label: str) -> str:
        """SI units of a field."""
        return Channel.parse(label).units

    def _one(self, label: str, physical: Tensor) -> Tensor:
        if label == LOWEST:
            return physical[..., self.lowest, :, :]
        return to_pressure(physical, self.world, (label,))[..., 0, :, :]

    def _makes(self, label: str) -> bool:
        mean = torch.as_tensor(self.world.climatology.mean_coefficients[:1])
        try:
            return bool(torch.isfinite(self._one(label, mean)).all())
        except GapzooError:
            return False
