"""A simulator's climate, calibrated to what was observed: bias, amplitude, representativeness.

A prior that was trained on a simulator knows that simulator's climate: mean c, spread s. Of the
departures d = y - H c of one day's observations of one channel, by maximum a posteriori likelihood,

    d_i = b(phi_i) + a s_i g_i + m s_i h_i + e_i,
    b ~ GP(0, t^2 exp(-(phi - phi')^2 / 2 B^2))        the simulator's bias, a function of latitude
    g ~ GP(0, exp(-x^2 / 2 L^2))                       the day's weather, of unit variance
    h ~ GP(0, exp(-x^2 / 2 S^2))                       weather below the grid: S is half a grid row
    e ~ N(0, r^2)                                      error of the instruments

with a the amplitude of the weather over the simulator's, and t, a, r, m, L found under log-normal
priors, wide for all but L, which is the length of weather that the grid carries. What is below the
grid is error to the analysis: an observation's variance is r^2 + m^2 <s^2>. The states that explain
the observations are then

    x = c + b + a (x_simulated - c),

so the prior keeps its patterns and its balance and gives up its mean and its amplitude. From one
day, a bias that follows latitude circles is told from weather by its shape alone: a zonal-mean
anomaly of that day counts as bias, a bias that depends on longitude as weather.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from scipy.optimize import minimize
from torch import Tensor

from gapzoo.core import GapzooError
from gapzoo.core.grid import EARTH_RADIUS
from gapzoo.core.world import World

BAND = 15.0
"""B, degrees: latitudes nearer than this share a bias."""
LENGTH = 6e5
"""Least middle of the prior of L, metres; it is 2.5 S where that is longer."""
UNRESOLVED = 0.3
"""Middle of the prior of m."""
WIDTHS = {"bias": 1.0, "amplitude": 0.7, "error": 1.0, "unresolved": 1.0, "length": 0.2}
"""Standard deviations of the logarithms of t, a, r, m and L."""
FEWEST = 8
"""Channels seen at fewer places keep the simulator's climate."""
OUTLIER = 5.0


@dataclass(frozen=True)
class Fit:
    """One channel: ``bias`` (H,) SI units, ``amplitude``, ``error`` SI units, all of it, ``length``
    metres, ``count`` of places."""

    bias: np.ndarray
    amplitude: float
    error: float
    length: float
    count: int


@dataclass(frozen=True)
class Calibration:
    """The map from a world's climate to the observed one.

    Args:
        bias: (C, H) SI units.
        amplitude: (C,).
        error: (C,) error standard deviation of an observation, SI units; NaN where unknown.
        count: (C,) places that it rests on.
    """

    bias: np.ndarray
    amplitude: np.ndarray
    error: np.ndarray
    count: np.ndarray

    @classmethod
    def none(cls, world: World) -> Calibration:
        """The simulator's climate as it is."""
        channels, height = len(world.channels), world.grid.shape[0]
        zero = np.zeros((channels, height))
        return cls(zero, np.ones(channels), np.full(channels, np.nan), np.zeros(channels, int))

    def only(self, *parts: str) -> Calibration:
        """Some parts of it, ``bias`` or ``amplitude``; errors stay."""
        bias = self.bias if "bias" in parts else np.zeros_like(self.bias)
        amplitude = self.amplitude if "amplitude" in parts else np.ones_like(self.amplitude)
        return replace(self, bias=bias, amplitude=amplitude)

    def mean(self, world: World, time: pd.Timestamp) -> Tensor:
        """(C, H, W) climatological mean of the day with the bias, SI units."""
        bias = torch.from_numpy(self.bias).float().unsqueeze(-1)
        return world.mean(pd.DatetimeIndex([time]))[0].float() + bias

    def scale(self, world: World) -> Tensor:
        """(C, H, W): what normalised states are multiplied with, SI units."""
        return torch.from_numpy(self.amplitude).float()[:, None, None] * world.std

    def spread(self, world: World, time: pd.Timestamp) -> Tensor:
        """(C, H, W) climatological standard deviation of the day, SI units."""
        std = torch.from_numpy(world.climatology.std(pd.DatetimeIndex([time]))[0]).float()
        return torch.from_numpy(self.amplitude).float()[:, None, None] * std

    def physical(self, z: Tensor, world: World, time: pd.Timestamp) -> Tensor:
        """Normalised states (..., C, H, W) to SI units; humidity not below zero."""
        states = self.mean(world, time) + self.scale(world) * z
        for channel in (i for i, c in enumerate(world.channels) if c.variable.endswith("humidity")):
            states[..., channel, :, :] = states[..., channel, :, :].clamp_min(0.0)
        return states


def calibrate(
    world: World,
    departures: pd.DataFrame,
    error: dict[int, float] | None = None,
) -> Calibration:
    """Fit every channel that was seen at enough places.

    Args:
        world: the simulator's.
        departures: a row an observation: ``channel`` (number), ``latitude``, ``longitude``,
            ``departure`` from the climatological mean, ``spread`` of the climate there, ``error``
            to expect (SI units). Several rows of one place and channel are averaged.
        error: of channels whose errors are known; they are not fitted then.

    Returns:
        The calibration; rows beyond ``OUTLIER`` standard deviations had no part in it.
    """
    found = Calibration.none(world)
    for channel, rows in departures.groupby("channel").indices.items():
        own = departures.iloc[rows]
        one = fit(own, np.asarray(world.grid.latitude), (error or {}).get(int(str(channel))))
        if one is None:
            continue
        at = int(str(channel))
        found.bias[at], found.amplitude[at], found.error[at] = one.bias, one.amplitude, one.error
        found.count[at] = one.count
    return found


def fit(rows: pd.DataFrame, latitude: np.ndarray, error: float | None = None) -> Fit | None:
    """One channel, twice: the second time without the outliers of the first.

    Args:
        rows: as in ``calibrate``.
        latitude: (H,) where the bias is wanted, degrees.
        error: standard deviation, where it is known.

    Returns:
        None for fewer than ``FEWEST`` places.
    """
    kept, last = np.ones(len(rows), bool), None
    for _ in range(2):
        places = _places(rows[kept])
        if len(places) < FEWEST:
            return last
        model = _Model(places, math.pi * EARTH_RADIUS / len(latitude) / 2, error)
        theta = model.maximum()
        bias = model.bias(theta, latitude)
        _, amplitude, noise, unresolved, length = (float(v) for v in np.exp(theta))
        noise = math.hypot(noise, unresolved * float(model.s.square().mean().sqrt()))
        left = rows["departure"] - np.interp(rows["latitude"], *_ascending(latitude, bias))
        expected = np.hypot(amplitude * rows["spread"], noise)
        kept = (np.abs(left) < OUTLIER * expected).to_numpy()
        last = Fit(bias, amplitude, noise, length, len(places))
    return last


def _ascending(latitude: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    order = np.argsort(latitude)
    return latitude[order], values[order]


def _places(rows: pd.DataFrame) -> pd.DataFrame:
    """One row a place."""
    names = ["departure", "spread", "error"]
    where = [rows[name].round(2) for name in ("latitude", "longitude")]
    return rows[names].groupby(where).mean().reset_index()


class _Model:
    """The likelihood of one channel; theta holds the logarithms of t, a, r, m, L."""

    def __init__(self, places: pd.DataFrame, short: float, error: float | None) -> None:
        self.short = short
        self.d = torch.from_numpy(places["departure"].to_numpy(copy=True))
        self.s = torch.from_numpy(places["spread"].to_numpy(copy=True))
        self.latitude = places["latitude"].to_numpy()
        self.bands = torch.from_numpy(_bands(self.latitude, self.latitude))
        self.near = torch.from_numpy(_squared(places))
        expected = error or 1.5 * float(places["error"].mean())
        if not (self.s > 0).all() or not expected > 0:
            raise GapzooError("departures need positive climatological spreads and errors")
        unresolved = 1e-3 if error else UNRESOLVED
        middle = [float(self.s.mean()), 1.0, expected, unresolved, max(LENGTH, 2.5 * short)]
        self.middle = np.log(middle)
        widths = [*WIDTHS.values()]
        widths[2:4] = [1e-3, 1e-3] if error else widths[2:4]
        self.widths = np.array(widths)

    def covariance(self, theta: Tensor) -> Tensor:
        """(n, n) of the departures."""
        t, a, r, m, length = theta.exp()
        weather = a**2 * torch.exp(-self.near / (2 * length**2))
        weather = weather + m**2 * torch.exp(-self.near / (2 * self.short**2))
        signal = t**2 * self.bands + weather * torch.outer(self.s, self.s)
        steady = 1e-6 * signal.diagonal().mean()
        return signal + (r**2 + steady) * torch.eye(len(self.d))

    def loss(self, theta: np.ndarray) -> tuple[float, np.ndarray]:
        """Negative log posterior and its gradient."""
        at = torch.from_numpy(theta).requires_grad_()
        factor = torch.linalg.cholesky(self.covariance(at))
        white = torch.linalg.solve_triangular(factor, self.d[:, None], upper=False)
        prior = ((at - torch.from_numpy(self.middle)) / torch.from_numpy(self.widths)) ** 2
        value = factor.diagonal().log().sum() + white.square().sum() / 2 + prior.sum() / 2
        value.backward()
        assert at.grad is not None
        return float(value.detach()), at.grad.numpy()

    def maximum(self) -> np.ndarray:
        """theta of the largest posterior."""
        bounds = [(m - 3 * w, m + 3 * w) for m, w in zip(self.middle, self.widths, strict=True)]
        found = minimize(self.loss, self.middle, jac=True, method="L-BFGS-B", bounds=bounds)
        return np.asarray(found.x)

    def bias(self, theta: np.ndarray, latitude: np.ndarray) -> np.ndarray:
        """(H,) posterior mean of b."""
        covariance = self.covariance(torch.from_numpy(theta)).detach()
        weights = torch.cholesky_solve(self.d[:, None], torch.linalg.cholesky(covariance))[:, 0]
        across = math.exp(2 * theta[0]) * _bands(latitude, self.latitude)
        return across @ weights.numpy()


def _bands(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return np.exp(-((first[:, None] - second) ** 2) / (2 * BAND**2))


def _squared(places: pd.DataFrame) -> np.ndarray:
    """(n, n) squared chords, metres squared."""
    phi, lam = np.deg2rad(places["latitude"]), np.deg2rad(places["longitude"])
    unit = np.stack([np.cos(phi) * np.cos(lam), np.cos(phi) * np.sin(lam), np.sin(phi)], 1)
    return EARTH_RADIUS**2 * np.maximum(2 - 2 * unit @ unit.T, 0.0)
