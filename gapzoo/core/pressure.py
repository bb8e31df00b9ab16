"""From sigma levels to pressure levels and mean sea level: the one diagnostics module.

A column has surface pressure p_s, surface geopotential phi_s and, at sigma_k, temperature T_k and
specific humidity q_k. With s = ln(p / p_s) (so s_k = ln sigma_k, the same in every column) and
the virtual temperature Tv = T (1 + EPSILON q):

- u, v, q: linear in s between levels; constant above the highest and below the lowest.
- T: the same, but below the lowest level, and on below the ground, it follows the standard lapse
  rate, T = T_K (p / p_K)^(R LAPSE / g).
- phi: hydrostatic, phi(s) = phi_s + R * integral of Tv from s to 0. Tv is linear in s between
  levels, hence the trapezoid; its line goes on to the ground; above the highest level it is
  constant. Exact for an isothermal atmosphere, of second order otherwise. The trapezoid on full
  levels is SPEEDY's own hydrostatics above its lowest level, so the half levels are not needed.
- phi below the ground: T_* (p / p_s)^(R l / g) in place of Tv, where T_* is the surface
  temperature by the standard lapse rate from the lowest level, and T_* and its lapse rate l are
  tempered over hot and cold ground as at ECMWF (below).
- mean sea level pressure: the same column, p = p_s (1 + l phi_s / (g T_*))^(g / (R l)).

Tempering, as in IFS documentation CY47R3, part VI (FULL-POS; Trenberth et al. 1993): with
HOT = 290.5 K, l is lowered so that the sea-level temperature T_* + l phi_s / g stays below HOT,
down to zero where T_* itself is above; there T_* becomes (T_* + HOT) / 2. Where T_* is below
COLD = 255 K it becomes (T_* + COLD) / 2. Unlike there, the lapse rate's integral is not expanded
in a series, T_* is virtual in phi and pressure, and the rules for temperature over mountains
above 2000 m are left out.

On a world that is on pressure levels already, channels are selected and nothing is computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from gapzoo.core.channels import Channel, Channels
from gapzoo.core.errors import GapzooError
from gapzoo.core.world import World

GRAVITY = 9.80665
"""m s-2."""
GAS_CONSTANT = 287.05
"""Of dry air, J kg-1 K-1."""
EPSILON = 0.608
"""Ratio of the gas constants of vapour and dry air, minus one."""
LAPSE = 0.0065
"""Standard lapse rate, K m-1."""
EXPONENT = GAS_CONSTANT * LAPSE / GRAVITY
"""T ~ p ** EXPONENT where the lapse rate is the standard one."""
HOT, COLD = 290.5, 255.0
HEADLINE = (
    "geopotential@500",
    "temperature@850",
    "u_component_of_wind@850",
    "specific_humidity@700",
    "mean_sea_level_pressure",
)
"""What headline scores are computed of."""

States = TypeVar("States", Tensor, np.ndarray)


def headline(states: States, world: World) -> tuple[States, tuple[str, ...]]:
    """Z500, T850, U850, Q700 and mean sea level pressure of states, in SI units.

    Args:
        states: (..., C, H, W) in SI units, torch or numpy, of the world's channels.
        world: on sigma or on pressure levels.

    Returns:
        Fields (..., 5, H, W), of the same kind; half precision as float32, and their labels.

    Raises:
        GapzooError: as ``to_pressure``.
    """
    return to_pressure(states, world, HEADLINE), HEADLINE


def to_pressure(states: States, world: World, wanted: Sequence[str]) -> States:
    """Fields on pressure levels, at mean sea level or at the surface.

    Args:
        states: (..., C, H, W) in SI units, torch or numpy, of the world's channels.
        world: on sigma or on pressure levels.
        wanted: labels such as ``geopotential@500`` (hPa), ``mean_sea_level_pressure``, or any
            single-level channel of the world.

    Returns:
        (..., len(wanted), H, W), of the same kind; half precision as float32.

    Raises:
        GapzooError: where a label cannot be made from the world's channels, or the shape of the
            states is not the world's.
    """
    if isinstance(states, np.ndarray):
        return to_pressure(torch.from_numpy(states), world, wanted).numpy()
    if tuple(states.shape[-3:]) != world.shape:
        raise GapzooError(
            f"state of shape {tuple(states.shape[-3:])}; {world.name} has "
            f"(channels, latitude, longitude) = {world.shape}"
        )
    column = Columns.of(states, world)
    return torch.stack([column.field(Channel.parse(label)) for label in wanted], -3)


def geopotential_on_sigma(states: States, world: World) -> States:
    """Hydrostatic geopotential (..., K, H, W) at the world's own sigma levels, highest first."""
    if isinstance(states, np.ndarray):
        return geopotential_on_sigma(torch.from_numpy(states), world).numpy()
    return Columns.of(states, world).geopotentials


def hydrostatic(virtual: Tensor, log_pressure: Tensor) -> Tensor:
    """Geopotential above the lowest of a set of levels.

    Args:
        virtual: (..., K, H, W) virtual temperature, highest level first, K.
        log_pressure: (K,) logarithm of the levels' pressure, in any unit, ascending.

    Returns:
        (..., K, H, W) in m2 s-2, zero at the last level.
    """
    depth = GAS_CONSTANT * log_pressure.diff()[:, None, None]
    layers = depth * (virtual[..., 1:, :, :] + virtual[..., :-1, :, :]) / 2
    above = layers.flip(-3).cumsum(-3).flip(-3)
    return torch.cat([above, torch.zeros_like(virtual[..., -1:, :, :])], -3)


@dataclass(frozen=True)
class Columns:
    """States of a world, with what is derived from their columns.

    Args:
        states: (..., C, H, W) in SI units.
        channels: what they hold.
        surface: (H, W) surface geopotential, m2 s-2; None where the world has none.
    """

    states: Tensor
    channels: Channels
    surface: Tensor | None

    @classmethod
    def of(cls, states: Tensor, world: World) -> Columns:
        """Columns of a world's states; half precision is widened to float32."""
        states = states if states.dtype in (torch.float32, torch.float64) else states.float()
        surface = None
        if "geopotential_at_surface" in world.static_channels:
            field = world.static[world.static_channels.index("geopotential_at_surface")]
            surface = torch.as_tensor(np.asarray(field)).to(states)
        return cls(states, world.channels, surface)

    def field(self, channel: Channel) -> Tensor:
        """(..., H, W) of a channel that the states have, or that can be made from them."""
        single = channel.level is None
        if self.channels.level_kind != "sigma" or (single and channel in self.channels):
            return self.states[..., self.channels.index(channel), :, :]
        if channel == Channel("mean_sea_level_pressure"):
            return self.sea_level_pressure
        if channel.level is None or channel.level <= 0:
            raise GapzooError(f"cannot make '{channel.label}'; name a level in hPa, as t@500")
        return self._at(channel.variable, float(np.log(100.0 * channel.level)))

    def _at(self, variable: str, log_pressure: float) -> Tensor:
        s = log_pressure - self.surface_pressure.log()
        if variable == "geopotential":
            return torch.where(s > 0, self._geopotential_below(s), self._geopotential(s))
        found = _linear(self._profile(variable), self.knots, s.clamp(*self.knots[[0, -1]]))
        if variable != "temperature":
            return found
        return found * torch.exp(EXPONENT * (s - self.knots[-1]).clamp_min(0))

    @cached_property
    def surface_pressure(self) -> Tensor:
        """(..., H, W) in Pa."""
        return self.states[..., self.channels.index("surface_pressure"), :, :]

    @cached_property
    def order(self) -> list[int]:
        """Positions of temperature's levels, highest first; the other profiles share them."""
        return sorted(self.channels.of("temperature"), key=lambda i: self.channels[i].level or 0)

    @cached_property
    def knots(self) -> Tensor:
        """(K,) logarithm of sigma at the levels, ascending."""
        sigma = np.array([self.channels[i].level for i in self.order], float)
        return torch.as_tensor(np.log(sigma)).to(self.states)

    def _profile(self, variable: str) -> Tensor:
        """(..., K, H, W), highest level first."""
        if variable == "temperature":
            return self.states[..., self.order, :, :]
        self.channels.of(variable)  # refuses by name
        levels = [Channel(variable, self.channels[i].level) for i in self.order]
        return self.states[..., [self.channels.index(c) for c in levels], :, :]

    @cached_property
    def virtual(self) -> Tensor:
        """(..., K, H, W) virtual temperature in K."""
        return self._profile("temperature") * (1 + EPSILON * self._profile("specific_humidity"))

    @cached_property
    def ground(self) -> Tensor:
        """(H, W) surface geopotential; its absence is refused."""
        if self.surface is None:
            raise GapzooError("no 'geopotential_at_surface' among the world's static fields")
        return self.surface

    @cached_property
    def geopotentials(self) -> Tensor:
        """(..., K, H, W) at the levels."""
        at_ground = _linear(self.virtual, self.knots, torch.zeros_like(self.surface_pressure))
        lowest = self.virtual[..., -1, :, :]
        foot = self.ground - GAS_CONSTANT * self.knots[-1] * (lowest + at_ground) / 2
        return foot[..., None, :, :] + hydrostatic(self.virtual, self.knots)

    def _geopotential(self, s: Tensor) -> Tensor:
        """At s <= 0: from the next level below, or the lowest, along the line of Tv."""
        inside = s.clamp_min(self.knots[0])
        level = torch.searchsorted(self.knots, inside.contiguous())
        level = level.clamp(1, len(self.knots) - 1)
        virtual = _linear(self.virtual, self.knots, inside)
        mean = (virtual + _pick(self.virtual, level)) / 2
        found = _pick(self.geopotentials, level)
        found = found + GAS_CONSTANT * (self.knots[level] - inside) * mean
        return found + GAS_CONSTANT * (inside - s) * self.virtual[..., 0, :, :]

    @cached_property
    def _below(self) -> tuple[Tensor, Tensor]:
        """Tempered T_* and lapse rate l."""
        star = self.virtual[..., -1, :, :] * torch.exp(-EXPONENT * self.knots[-1])
        lapse = (HOT - star) * GRAVITY / self.ground.clamp_min(1.0)
        lapse = lapse.clamp(0.0, LAPSE)
        star = torch.where(star > HOT, (star + HOT) / 2, star)
        return torch.where(star < COLD, (star + COLD) / 2, star), lapse

    def _geopotential_below(self, s: Tensor) -> Tensor:
        star, lapse = self._below
        y = GAS_CONSTANT * lapse / GRAVITY * s
        return self.ground - GAS_CONSTANT * star * s * _ratio(torch.expm1, y)

    @cached_property
    def sea_level_pressure(self) -> Tensor:
        """(..., H, W) in Pa."""
        star, lapse = self._below
        x = lapse * self.ground / (GRAVITY * star)
        log_ratio = self.ground / (GAS_CONSTANT * star) * _ratio(torch.log1p, x)
        return self.surface_pressure * log_ratio.exp()


def _linear(profile: Tensor, knots: Tensor, s: Tensor) -> Tensor:
    """Profile (..., K, H, W) at s (..., H, W): linear in s, beyond the ends as well."""
    level = torch.searchsorted(knots, s.contiguous()).clamp(1, len(knots) - 1)
    weight = (s - knots[level - 1]) / (knots[level] - knots[level - 1])
    upper, lower = _pick(profile, level - 1), _pick(profile, level)
    return upper + weight * (lower - upper)


def _pick(profile: Tensor, level: Tensor) -> Tensor:
    return torch.take_along_dim(profile, level[..., None, :, :], -3)[..., 0, :, :]


def _ratio(function: object, x: Tensor) -> Tensor:
    """``function(x) / x``, one at zero."""
    safe = torch.where(x == 0, torch.ones_like(x), x)
    return torch.where(x == 0, torch.ones_like(x), function(safe) / safe)  # type: ignore[operator]
