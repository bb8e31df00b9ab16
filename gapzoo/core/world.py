"""The world: what must be known of the data to normalise a state and to condition a network.

It is made from an archive once, at training, and travels inside the checkpoint; nothing after
that needs the archive. Normalised states are anomalies from the day-of-year climatology over the
spread of that grid point and channel:

    z = (x - clim(day)) / std

so that every channel and place has unit variance, the tropics and the poles alike. Forcing enters
as anomalies too, since the climatology already carries the season.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from gapzoo.core.channels import Channels
from gapzoo.core.climatology import Climatology, evaluate
from gapzoo.core.errors import GapzooError
from gapzoo.core.grid import Grid

POINT_FLOOR = 0.1
"""A grid point's spread is at least this share of its channel's mean spread."""
SAME = 1e-3
"""Spreads by which two climatologies may differ and count as the same."""
STATIC_INPUTS = 3
FORCING_INPUTS = 3
"""Conditioning channels before the forcing anomalies: the flag, cosine and sine of the year."""


@dataclass(frozen=True)
class World:
    """Grid, channels, climatology, forcings and static fields of a data set.

    Args:
        name: such as ``speedy-t21``.
        grid: horizontal grid.
        channels: channels of the state.
        hours: time between the archive's steps.
        climatology: day-of-year mean and variance of the channels, SI units.
        diff_std: (C,) area-mean standard deviation of the change over ``hours``, SI units.
        forcing_channels: names of the forcing fields.
        forcing_climatology: (harmonics, F, H, W).
        forcing_std: (F,) standard deviation of the forcings' anomalies.
        static: (S, H, W) fields of ``static_channels``.
        static_channels: their names.
        details: what else to keep: data hash, training period, level edges, licence.
    """

    name: str
    grid: Grid
    channels: Channels
    hours: int
    climatology: Climatology
    diff_std: np.ndarray
    forcing_channels: tuple[str, ...]
    forcing_climatology: np.ndarray
    forcing_std: np.ndarray
    static: np.ndarray
    static_channels: tuple[str, ...]
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of a state."""
        return len(self.channels), *self.grid.shape

    @property
    def std(self) -> Tensor:
        """(C, H, W) float32: what a normalised state is multiplied with, SI units."""
        variance = np.maximum(self.climatology.variance_coefficients[0], 0.0)
        point = np.sqrt(variance)
        floor = POINT_FLOOR * self.spread[:, None, None]
        return torch.from_numpy(np.maximum(point, floor).astype(np.float32))

    @property
    def spread(self) -> np.ndarray:
        """(C,) climatological spread of each channel: root of the area-mean variance, SI units."""
        variance = np.maximum(self.climatology.variance_coefficients[0], 0.0)
        weights = self.grid.area_weights[:, None] / np.prod(self.grid.shape)
        return np.sqrt((variance * weights).sum((-2, -1)))

    @property
    def truncation(self) -> int | None:
        """Triangular truncation of the spectral model that made the data, where one is known."""
        found = (self.details.get("arguments") or {}).get("truncation")
        return None if found is None else int(found)

    def mean(self, times: pd.DatetimeIndex) -> Tensor:
        """(T, C, H, W) climatological mean, SI units."""
        return torch.from_numpy(self.climatology.mean(times))

    def normalise(self, states: Tensor, times: pd.DatetimeIndex) -> Tensor:
        """States (T, C, H, W) or (T, M, C, H, W) in SI units to anomalies z, float32."""
        self._check(states)
        mean = self.mean(times).to(states.device)
        return (states.float() - _ahead(mean, states)) / self.std.to(states.device)

    def denormalise(self, z: Tensor, times: pd.DatetimeIndex) -> Tensor:
        """The inverse of ``normalise``."""
        self._check(z)
        return z * self.std.to(z.device) + _ahead(self.mean(times).to(z.device), z)

    def normalises_like(self, other: World) -> bool:
        """Whether both mean the same by a normalised state, to ``SAME`` spreads."""
        mine, theirs = self.climatology.mean_coefficients, other.climatology.mean_coefficients
        if mine.shape != theirs.shape:
            return False
        apart = torch.from_numpy(np.abs(mine - theirs).sum(0)).float() / self.std
        return max(float(apart.max()), float((other.std / self.std - 1).abs().max())) < SAME

    def renormalise(self, z: Tensor, times: pd.DatetimeIndex, source: World) -> Tensor:
        """States that another world normalised, (T, C, H, W) or (T, M, C, H, W), in this one's.

        Two realisations of one climate differ by the sampling of their training years; two
        climates by more. Where nothing differs the states come back as they are.
        """
        if source is self or self.normalises_like(source):
            return z
        return self.normalise(source.denormalise(z, times), times)

    def require(self, other: World, whose: str) -> None:
        """Refuse a world that states of this one don't fit, naming what differs.

        Args:
            other: must have the same channels and grid; for its normalisation see
                ``renormalise``.
            whose: such as ``checkpoint 'unet_small.tag'``; opens the message.
        """
        mine, theirs = self.channels.labels, other.channels.labels
        for label in mine + theirs:
            if (label in mine) != (label in theirs):
                verb = "lacks" if label in mine else "has"
                raise GapzooError(f"{whose} {verb} '{label}', which {self.name} here does not fit")
        if self.channels != other.channels or not self.grid.matches(other.grid):
            raise GapzooError(f"{whose} has another grid, order or kind of levels than {self.name}")

    @property
    def cond_channels(self) -> int:
        """K, channels of the conditioning."""
        return FORCING_INPUTS + len(self.forcing_channels) + STATIC_INPUTS

    def forcing_anomaly(self, fields: np.ndarray, times: pd.DatetimeIndex) -> np.ndarray:
        """Forcing fields (T, F, H, W) in SI units to anomalies from their climatology."""
        return fields - evaluate(self.forcing_climatology, times)

    def condition(self, times: pd.DatetimeIndex, anomaly: np.ndarray | None = None) -> Tensor:
        """Conditioning (T, K, H, W) float32 of a network.

        Channels: 1 (the flag that forcing is given), cosine and sine of the year, forcing
        anomalies in units of two standard deviations, then orography, land mask and sine of
        latitude, which are always there.

        Args:
            times: valid times.
            anomaly: (T, F, H, W) forcing anomalies, SI units; None is the climatology.
        """
        count, (height, width) = len(times), self.grid.shape
        if anomaly is None:
            anomaly = np.zeros((count, len(self.forcing_channels), height, width), np.float32)
        if anomaly.shape != (count, len(self.forcing_channels), height, width):
            raise GapzooError(
                f"forcing of shape {anomaly.shape} for {count} times; expected (times, "
                f"{', '.join(self.forcing_channels)}, {height}, {width})"
            )
        phase = 2 * np.pi * np.asarray(times.dayofyear - 1, float) / 365.25
        season = np.stack([np.ones(count), np.cos(phase), np.sin(phase)], 1)[..., None, None]
        season = np.broadcast_to(season, (count, 3, height, width))
        scaled = anomaly / np.maximum(2 * self.forcing_std, 1e-6)[:, None, None]
        static = np.broadcast_to(self._static(), (count, STATIC_INPUTS, height, width))
        return torch.from_numpy(np.concatenate([season, scaled, static], 1).astype(np.float32))

    def _static(self) -> np.ndarray:
        """(3, H, W): scaled surface height, land fraction, sine of latitude."""
        height = self._field("geopotential_at_surface") / 9.81 / 1500.0
        sine = np.sin(np.deg2rad(self.grid.latitude))[:, None]
        rows = np.broadcast_to(sine, self.grid.shape)
        return np.stack([height, self._field("land_sea_mask"), rows])

    def _field(self, name: str) -> np.ndarray:
        if name not in self.static_channels:
            return np.zeros(self.grid.shape)
        return self.static[self.static_channels.index(name)]

    def _check(self, states: Tensor) -> None:
        if tuple(states.shape[-3:]) != self.shape:
            raise GapzooError(
                f"state of shape {tuple(states.shape[-3:])}; {self.name} has "
                f"(channels, latitude, longitude) = {self.shape}"
            )


def _ahead(mean: Tensor, states: Tensor) -> Tensor:
    """Give (T, C, H, W) the states' extra axes between time and channel."""
    return mean.reshape(len(mean), *[1] * (states.ndim - 4), *mean.shape[1:])
