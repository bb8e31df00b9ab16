"""Sunlight at the top of the atmosphere, from the Earth's orbit.

    F = S0 / R^2 * cos Z,     cos Z = sin phi sin delta + cos phi cos delta cos h  (at least 0)

with the solar constant S0 = 1361 W m-2, the distance R (AU) and declination delta from the
low-precision formulae of Meeus, Astronomical Algorithms (2nd edition, chapter 25; 0.01 degrees),
and the hour angle h of true solar time (equation of time: chapter 28, Smart's formula). What
gathers in some hours is the exact integral over h with delta and R at the middle of each part of
at most an hour.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from gapzoo.core import Grid

SOLAR_CONSTANT = 1361.0
"""W m-2 at 1 AU (Kopp and Lean 2011)."""
_J2000 = pd.Timestamp("2000-01-01 12:00")


def orbit(times: pd.DatetimeIndex) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(T,) declination in radians, distance in AU, equation of time in radians of hour angle."""
    century = np.asarray((times - _J2000) / pd.Timedelta(days=36525), float)
    mean_longitude = np.deg2rad(280.46646 + 36000.76983 * century + 0.0003032 * century**2)
    anomaly = np.deg2rad(357.52911 + 35999.05029 * century - 0.0001537 * century**2)
    eccentricity = 0.016708634 - 0.000042037 * century
    centre = np.deg2rad(
        (1.914602 - 0.004817 * century) * np.sin(anomaly)
        + (0.019993 - 0.000101 * century) * np.sin(2 * anomaly)
        + 0.000289 * np.sin(3 * anomaly)
    )
    node = np.deg2rad(125.04 - 1934.136 * century)
    longitude = mean_longitude + centre - np.deg2rad(0.00569 + 0.00478 * np.sin(node))
    obliquity = np.deg2rad(23.439291 - 0.0130042 * century + 0.00256 * np.cos(node))
    declination = np.arcsin(np.sin(obliquity) * np.sin(longitude))
    distance = 1.000001018 * (1 - eccentricity**2) / (1 + eccentricity * np.cos(anomaly + centre))
    return declination, distance, _equation(mean_longitude, anomaly, eccentricity, obliquity)


def _equation(
    longitude: np.ndarray, anomaly: np.ndarray, eccentricity: np.ndarray, obliquity: np.ndarray
) -> np.ndarray:
    y = np.tan(obliquity / 2) ** 2
    return (
        y * np.sin(2 * longitude)
        - 2 * eccentricity * np.sin(anomaly)
        + 4 * eccentricity * y * np.sin(anomaly) * np.cos(2 * longitude)
        - y**2 / 2 * np.sin(4 * longitude)
        - 5 / 4 * eccentricity**2 * np.sin(2 * anomaly)
    )


def hour_angle(times: pd.DatetimeIndex, longitude: Sequence[float]) -> np.ndarray:
    """(T, W) radians from true noon, not wrapped within one call's day."""
    day = np.asarray((times - times.normalize()) / pd.Timedelta(days=1), float)
    clock = 2 * np.pi * (day - 0.5) + orbit(times)[2]
    return clock[:, None] + np.deg2rad(np.asarray(longitude))


def flux(times: pd.DatetimeIndex, grid: Grid) -> np.ndarray:
    """(T, H, W) W m-2 at an instant."""
    declination, distance, _ = orbit(times)
    sine, cosine = _zenith(declination, grid)
    angle = hour_angle(times, grid.longitude)[:, None, :]
    return (
        SOLAR_CONSTANT
        / distance[:, None, None] ** 2
        * np.maximum(sine + cosine * np.cos(angle), 0.0)
    )


def gathered(times: pd.DatetimeIndex, grid: Grid, hours: float = 1.0) -> np.ndarray:
    """(T, H, W) J m-2 in the ``hours`` that end at each time, as ERA5 keeps it (1 h)."""
    parts = int(np.ceil(hours))
    span = pd.Timedelta(hours=hours) / parts
    return sum(_part(times - n * span, span, grid) for n in range(parts))  # type: ignore[return-value]


def _part(ends: pd.DatetimeIndex, span: pd.Timedelta, grid: Grid) -> np.ndarray:
    """J m-2 in one span before each end."""
    middle = ends - span / 2
    declination, distance, _ = orbit(middle)
    sine, cosine = _zenith(declination, grid)
    half = np.pi * (span / pd.Timedelta(days=1))
    angle = hour_angle(middle, grid.longitude)[:, None, :]
    sunset = np.arccos(np.clip(-sine / np.maximum(cosine, 1e-12), -1.0, 1.0))
    light = [_until(angle + side * half, sunset, sine, cosine) for side in (-1, 1)]
    seconds = 86400 / (2 * np.pi)
    return SOLAR_CONSTANT / distance[:, None, None] ** 2 * seconds * (light[1] - light[0])


def _until(
    angle: np.ndarray, sunset: np.ndarray, sine: np.ndarray, cosine: np.ndarray
) -> np.ndarray:
    """Integral of cos Z over the hour angle from midnight long ago until ``angle``."""
    turns = np.floor((angle + np.pi) / (2 * np.pi))
    within = np.clip(angle - 2 * np.pi * turns, -sunset, sunset)
    day = 2 * (sine * sunset + cosine * np.sin(sunset))
    return turns * day + sine * (within + sunset) + cosine * (np.sin(within) + np.sin(sunset))


def _zenith(declination: np.ndarray, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """(T, H, 1) sin phi sin delta and cos phi cos delta."""
    latitude = np.deg2rad(grid.latitude)
    sine = np.sin(declination)[:, None] * np.sin(latitude)
    cosine = np.cos(declination)[:, None] * np.cos(latitude)
    return sine[..., None], cosine[..., None]
