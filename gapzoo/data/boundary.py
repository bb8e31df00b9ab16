"""Boundary conditions as functions of time: sunlight, series, monthly means, and their stack.

A field maps times (T,) to (T, H, W) in SI units and knows the ``period`` that it is known in.

Monthly means are interpolated as in AMIP II (Taylor, Williamson and Zwiers 2000, PCMDI report 60):
values at mid-month, linear in between and constant beyond the ends, are solved for so that the
mean over each month is the mean given. Where a bound (sea ice 0 to 1) cuts them, it is not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import pandas as pd
from scipy.linalg import solve_banded

from gapzoo.core import GapzooError, Grid
from gapzoo.data.solar import gathered

Period = tuple[pd.Timestamp, pd.Timestamp]
SOLAR = "toa_incident_solar_radiation"
"""Computed for every time: J m-2 in the hour that ends there."""
BOUNDS = {"sea_ice_cover": (0.0, 1.0)}
_EPOCH = pd.Timestamp("1970-01-01")
_NONE = pd.Timedelta(0)


class TimeField(Protocol):
    """One field as a function of time."""

    @property
    def period(self) -> Period | None:
        """First and last time that it is known at; None for all times."""
        ...

    def __call__(self, times: pd.DatetimeIndex) -> np.ndarray:
        """(T, H, W) in SI units."""
        ...


@dataclass(frozen=True)
class Solar:
    """Sunlight at the top of the atmosphere, J m-2 in the ``hours`` before each time."""

    grid: Grid
    hours: float = 1.0
    period = None

    def __call__(self, times: pd.DatetimeIndex) -> np.ndarray:
        """(T, H, W)."""
        return gathered(times, self.grid, self.hours).astype(np.float32)


@dataclass(frozen=True)
class Series:
    """Values linear in time between instants; a value everywhere, or a field.

    Args:
        name: for errors.
        instants: (N,) ascending.
        values: (N, H, W), or (N, 1, 1) for a scalar.
        grid: of what is returned.
        hold: how long the first and last value hold beyond their instants.
    """

    name: str
    instants: pd.DatetimeIndex
    values: np.ndarray
    grid: Grid
    hold: pd.Timedelta = _NONE

    @property
    def period(self) -> Period:
        """From the first instant to the last, and ``hold`` on either side."""
        return self.instants[0] - self.hold, self.instants[-1] + self.hold

    def __call__(self, times: pd.DatetimeIndex) -> np.ndarray:
        """(T, H, W); raises GapzooError outside the period."""
        covers(self.period, times, self.name)
        found = between(days_of(self.instants), self.values, days_of(times))
        return np.broadcast_to(found, (len(times), *self.grid.shape)).astype(np.float32)


def yearly(name: str, values: Mapping[int, float], grid: Grid) -> Series:
    """A scalar such as carbon dioxide by annual means, each at the middle of its year.

    Args:
        name: of the forcing.
        values: year to value, SI units (a mole fraction: 4.1e-4, not 410).
        grid: where it is everywhere alike.
    """
    years = sorted(int(y) for y in values)
    middle = pd.DatetimeIndex([pd.Timestamp(year, 7, 2) for year in years])
    numbers = np.array([float(values[y]) for y in years], np.float64)[:, None, None]
    return Series(name, middle, numbers, grid, pd.Timedelta(days=183))


@dataclass(frozen=True)
class Monthly:
    """Monthly means made continuous, each month's mean kept; see the module.

    Args:
        name: for errors and bounds.
        months: (N,) any time within each of N consecutive months.
        means: (N, H, W) SI units.
    """

    name: str
    months: pd.DatetimeIndex
    means: np.ndarray

    def __post_init__(self) -> None:
        number = np.asarray(self.months.year * 12 + self.months.month)
        if len(number) < 1 or (np.diff(number) != 1).any():
            raise GapzooError(f"'{self.name}' does not have one mean for each month in a row")

    @cached_property
    def edges(self) -> pd.DatetimeIndex:
        """(N + 1,) where the months begin and the last one ends."""
        starts = self.months.to_period("M").to_timestamp()
        return starts.append(pd.DatetimeIndex([starts[-1] + pd.offsets.MonthBegin(1)]))

    @property
    def period(self) -> Period:
        """From the first month's beginning to just before the last one's end."""
        return self.edges[0], self.edges[-1] - pd.Timedelta(seconds=1)

    @cached_property
    def knots(self) -> np.ndarray:
        """(N, H, W) values at mid-month."""
        edges = days_of(self.edges)
        flat = self.means.reshape(len(self.means), -1).astype(np.float64)
        solved = solve_banded((1, 1), _monthly_means(edges), flat)
        bounded = np.clip(solved, *BOUNDS.get(self.name, (-np.inf, np.inf)))
        return bounded.reshape(self.means.shape)

    def __call__(self, times: pd.DatetimeIndex) -> np.ndarray:
        """(T, H, W); raises GapzooError outside the period."""
        covers(self.period, times, self.name)
        edges = days_of(self.edges)
        middle = (edges[1:] + edges[:-1]) / 2
        return between(middle, self.knots, days_of(times)).astype(np.float32)


def _monthly_means(edges: np.ndarray) -> np.ndarray:
    """(3, N) bands of the matrix that takes mid-month values to monthly means.

    A half month of length h beside one of length g has the mean of its line, which holds the
    neighbour with weight h / (2 (h + g)).
    """
    half = np.diff(edges) / 2
    share = half[:, None] / (
        2 * (half[:, None] + np.stack([np.roll(half, 1), np.roll(half, -1)], 1))
    )
    share[0, 0] = share[-1, 1] = 0.0
    below, above = share[:, 0] / 2, share[:, 1] / 2
    bands = np.zeros((3, len(half)))
    bands[0, 1:], bands[1], bands[2, :-1] = above[:-1], 1 - below - above, below[1:]
    return bands


@dataclass(frozen=True)
class Fields:
    """Several fields, stacked in the order they are given."""

    fields: Mapping[str, TimeField]

    @property
    def period(self) -> Period | None:
        """The time that all of them are known at; None where that is all time."""
        known = [f.period for f in self.fields.values() if f.period is not None]
        return (max(p[0] for p in known), min(p[1] for p in known)) if known else None

    def require(self, times: pd.DatetimeIndex) -> None:
        """Refuse times that some field does not cover, naming field and date."""
        for name, one in self.fields.items():
            if one.period is not None:
                covers(one.period, times, name)

    def __call__(self, times: pd.DatetimeIndex) -> np.ndarray:
        """(T, F, H, W) SI units."""
        return np.stack([one(times) for one in self.fields.values()], 1)


def covers(
    period: Period, times: pd.DatetimeIndex, name: str, fix: str = "take other dates"
) -> None:
    """Refuse times outside a period, naming the first of them and the ``fix``.

    Raises:
        GapzooError: for ``'NAME' is not known on DATE``.
    """
    outside = times[(times < period[0]) | (times > period[1])]
    if len(outside):
        raise GapzooError(
            f"'{name}' is not known on {outside[0]:%Y-%m-%d %H:%M}; it covers "
            f"{period[0]:%Y-%m-%d} to {period[1]:%Y-%m-%d}; {fix}"
        )


def days_of(times: pd.DatetimeIndex) -> np.ndarray:
    """(T,) days since 1970."""
    return np.asarray((times - _EPOCH) / pd.Timedelta(days=1), float)


def between(knots: np.ndarray, values: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Linear interpolation of (N, ...) along its first axis, constant beyond the ends."""
    if len(knots) == 1:
        return np.broadcast_to(values, (len(at), *values.shape[1:]))
    right = np.clip(np.searchsorted(knots, at, side="right"), 1, len(knots) - 1)
    weight = np.clip((at - knots[right - 1]) / (knots[right] - knots[right - 1]), 0.0, 1.0)
    weight = weight.reshape(-1, *[1] * (values.ndim - 1))
    return (1 - weight) * values[right - 1] + weight * values[right]
