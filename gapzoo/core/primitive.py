"""How a state changes by the resolved flow alone: the primitive equations, nothing added.

On sigma levels, with wind V, divergence D, G = D + V . grad ln p_s, and sums over the layers above,

    d X / dt   = -V . grad X - sigma' dX/dsigma,       X = u, v, T, q, ...
    d u / dt  += (f + u tan(phi) / a) v - d Phi / dx - R T d ln p_s / dx,    d v / dt likewise
    d T / dt  += kappa T omega / p
    d p_s / dt = -p_s sum_k G_k dsigma_k
    sigma'     = sigma sum_all G dsigma - sum_above G dsigma
    omega / p  = V . grad ln p_s - (L sum_above G dsigma + alpha G dsigma) / dsigma

with the vertical differences of Simmons & Burridge (1981, Mon. Wea. Rev. 109, 758): L is the
logarithm of a layer's lower over its upper edge, alpha = 1 - L sigma_upper / dsigma, in the top
layer ln 2. Phi is hydrostatic and T in the pressure gradient virtual. On pressure levels G is D,
no surface moves and Phi is a channel. Derivatives along latitude are those of the
trigonometric polynomial through a whole meridian and its opposite, where vectors change their sign.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from gapzoo.core.grid import EARTH_RADIUS, Grid
from gapzoo.core.pressure import GAS_CONSTANT, Columns
from gapzoo.core.world import World

KAPPA, ROTATION = 2 / 7, 7.292e-5
EAST, NORTH, HEAT = "u_component_of_wind", "v_component_of_wind", "temperature"
SURFACE, HEIGHT = "surface_pressure", "geopotential"
HOUR = 3600.0


class Adiabatic:
    """The adiabatic tendency of a world's states.

    Args:
        world: with winds on levels.
    """

    def __init__(self, world: World) -> None:
        self.world, self.profiles = world, _profiles(world)
        self.sphere = Derivatives(world.grid)
        level = np.array([world.channels[i].level for i in self.profiles[EAST]], float)
        sigma = world.channels.level_kind == "sigma" and SURFACE in world.channels.labels
        self.surface = world.channels.index(SURFACE) if sigma else None
        needed = {HEAT, "specific_humidity"} <= set(self.profiles)
        self.hydrostatic = needed and "geopotential_at_surface" in world.static_channels
        edges = _edges(world, level)
        below = np.log(edges[2:] / edges[1:-1])
        own = np.concatenate([[np.log(2.0)], 1 - edges[1:-1] / np.diff(edges)[1:] * below])
        self.depth, self.share, self.above, self.own = (
            torch.from_numpy(v).float()[:, None, None]
            for v in (np.diff(edges), edges[1:] / edges[-1], np.concatenate([[0.0], below]), own)
        )

    @classmethod
    def of(cls, world: World) -> Adiabatic | None:
        """None for a world whose winds are not known on levels."""
        known = _profiles(world)
        return cls(world) if EAST in known and NORTH in known else None

    def __call__(self, z: Tensor, times: pd.DatetimeIndex) -> Tensor:
        """How much faster normalised states change than the climatology would.

        Args:
            z: (B, C, H, W).
            times: of each, or one of all.

        Returns:
            (B, C, H, W) an hour.
        """
        known = times.unique()
        mean, std = self.world.mean(known).to(z.device), self.world.std.to(z.device)
        row = torch.from_numpy(known.get_indexer(times)).to(z.device)
        own, usual = self.tendency(mean[row] + z.float() * std), self.tendency(mean)
        return (own - usual[row]) / std * HOUR

    def tendency(self, x: Tensor) -> Tensor:
        """Of states (B, C, H, W) in SI units, units of the channel a second.

        Zero for channels that are neither on the winds' levels nor surface pressure.
        """
        flow, out = _Flow(self, x), torch.zeros_like(x)
        for name, rows in self.profiles.items():
            out[:, rows] = flow.advected(x[:, rows], vector=name in (EAST, NORTH))
        for name, added in {**flow.forces(), **flow.compression()}.items():
            out[:, self.profiles[name]] += added
        if self.surface is not None:
            out[:, self.surface] = -x[:, self.surface] * flow.whole[:, 0]
        return out


class _Flow:
    """The motion of states (B, C, H, W) in SI units; profiles are (B, K, H, W)."""

    def __init__(self, owner: Adiabatic, x: Tensor) -> None:
        self.owner, self.x, self.sphere = owner, x, owner.sphere
        self.east, self.north = self._profile(EAST), self._profile(NORTH)
        gain, self.slope = self.sphere.divergence(self.east, self.north), None
        if owner.surface is not None:
            log = x[:, owner.surface : owner.surface + 1].log()
            self.slope = self.sphere.east(log), self.sphere.north(log)
            gain = gain + self._along(*self.slope)
        layers = gain * owner.depth.to(x)
        through = layers.cumsum(1)
        sinking = owner.above.to(x) * (through - layers) + owner.own.to(x) * layers
        self.sinking, self.whole = sinking / owner.depth.to(x), through[:, -1:]
        moved = 0.0 if self.slope is None else self.whole * owner.share.to(x)
        self.down = (moved - through)[:, :-1]  # through the edges between layers

    def _profile(self, name: str) -> Tensor:
        return self.x[:, self.owner.profiles[name]]

    def _along(self, east: Tensor, north: Tensor) -> Tensor:
        return self.east * east + self.north * north

    def advected(self, x: Tensor, *, vector: bool) -> Tensor:
        """-V . grad X - sigma' dX/dsigma."""
        flux = self.down * x.diff(dim=1)
        edge = torch.zeros_like(x[:, :1])
        both = torch.cat([flux, edge], 1) + torch.cat([edge, flux], 1)
        along = self._along(self.sphere.east(x), self.sphere.north(x, vector=vector))
        return -along - both / (2 * self.owner.depth.to(x))

    def forces(self) -> dict[str, Tensor]:
        """Rotation and, where the state tells it, the gradient of pressure, m/s2."""
        turn, (east, north) = self.sphere.turning(self.east), self._pressure()
        return {EAST: turn * self.north - east, NORTH: -turn * self.east - north}

    def _pressure(self) -> tuple[Tensor | float, Tensor | float]:
        """grad Phi + R T grad ln p_s."""
        owner, sphere = self.owner, self.sphere
        if self.slope is not None and owner.hydrostatic:
            column = Columns.of(self.x, owner.world)
            height, gas = column.geopotentials, GAS_CONSTANT * column.virtual
            east, north = (gas * slope for slope in self.slope)
            return sphere.east(height) + east, sphere.north(height) + north
        if HEIGHT not in owner.profiles:
            return 0.0, 0.0
        height = self._profile(HEIGHT)
        return sphere.east(height), sphere.north(height)

    def compression(self) -> dict[str, Tensor]:
        """kappa T omega / p, K/s."""
        if HEAT not in self.owner.profiles:
            return {}
        motion = -self.sinking
        if self.slope is not None:
            motion = motion + self._along(*self.slope)
        return {HEAT: KAPPA * self._profile(HEAT) * motion}


class Derivatives:
    """Derivatives on the sphere, per metre.

    Args:
        grid: of fields (..., H, W); rows at a pole count as half a row away from it.
    """

    def __init__(self, grid: Grid) -> None:
        latitude = np.deg2rad(np.asarray(grid.latitude))
        cosine = np.maximum(np.cos(latitude), np.abs(np.diff(latitude)).min() / 2)
        self.sine, self.cosine = (
            torch.from_numpy(v).float()[:, None] for v in (np.sin(latitude), cosine)
        )
        self.matrix = torch.from_numpy(_meridional(latitude) / EARTH_RADIUS).float()

    def east(self, z: Tensor) -> Tensor:
        """Along a circle of latitude."""
        waves, width = torch.fft.rfft(z), z.shape[-1]
        number = torch.arange(waves.shape[-1], device=z.device).to(z)
        number[-1] *= width % 2  # the shortest wave's derivative is not on the grid
        slope = torch.fft.irfft(1j * number * waves, n=width)
        return slope / (EARTH_RADIUS * self.cosine.to(z))

    def north(self, z: Tensor, *, vector: bool = False) -> Tensor:
        """Along a meridian, of scalars or of components of vectors."""
        across = z.roll(z.shape[-1] // 2, -1) * (-1 if vector else 1)
        return self.matrix.to(z) @ torch.cat([z, across], -2)

    def divergence(self, east: Tensor, north: Tensor) -> Tensor:
        """Of winds (..., H, W), 1/s."""
        cosine = self.cosine.to(east)
        return self.east(east) + self.north(north * cosine) / cosine

    def turning(self, east: Tensor) -> Tensor:
        """f + u tan(phi) / a of eastward wind, 1/s."""
        sine, cosine = self.sine.to(east), self.cosine.to(east)
        return 2 * ROTATION * sine + east * sine / (cosine * EARTH_RADIUS)


def _meridional(latitude: np.ndarray) -> np.ndarray:
    """(H, 2 H): d/dphi at rows, from values there and on the opposite meridian."""
    angle, number = np.concatenate([latitude, np.pi - latitude]), np.arange(len(latitude))
    phase, own = np.outer(angle, number), np.outer(latitude, number)
    values = np.concatenate([np.cos(phase), np.sin(phase)], 1)
    slopes = np.concatenate([-np.sin(own), np.cos(own)], 1) * np.tile(number, 2)
    return slopes @ np.linalg.pinv(values, rcond=1e-9)


def _profiles(world: World) -> dict[str, list[int]]:
    """Channels, highest first, of each variable that is on the winds' levels and no other."""
    found: dict[str, list[int]] = defaultdict(list)
    for i in np.argsort([channel.level or 0.0 for channel in world.channels], kind="stable"):
        if world.channels[i].level is not None:
            found[world.channels[i].variable].append(int(i))
    levels = {name: [world.channels[i].level for i in rows] for name, rows in found.items()}
    return {name: rows for name, rows in found.items() if levels[name] == levels.get(EAST)}


def _edges(world: World, level: np.ndarray) -> np.ndarray:
    """(K + 1,) edges of the layers in the level's unit, from 0: the world's own, or midway."""
    sigma, known = world.channels.level_kind == "sigma", world.details.get("sigma_edges") or []
    if sigma and len(known) == len(level) + 1:
        return np.sort(np.asarray(known, float))
    middle = (level[1:] + level[:-1]) / 2
    return np.concatenate([[0.0], middle, [1.0 if sigma else level[-1]]])
