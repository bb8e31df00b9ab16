"""Harmonics of the year: exact values, phase, the floor of the variance."""

import numpy as np
import pandas as pd
import pytest

from gapzoo.core.climatology import VARIANCE_FLOOR, Climatology, harmonics


def test_harmonics_at_known_times():
    times = pd.DatetimeIndex(["1980-01-01", "1980-04-01 07:30"])  # 91.3125 days: a quarter
    rows = harmonics(times, 2)
    assert rows[0] == pytest.approx([1, 1, 0, 1, 0])
    assert rows[1] == pytest.approx([1, 0, 1, -1, 0], abs=1e-12)
    other = harmonics(pd.DatetimeIndex(["2003-04-01 07:30", "1980-04-01"]), 1)
    later = 2 * np.pi * 90.3125 / 365.25  # one day less before April without a leap day
    assert other[0] == pytest.approx([1, np.cos(later), np.sin(later)])


def test_the_turn_of_the_year_is_smooth():
    """From 31 December 23:59 to 1 January the climatology moves by less than in two days."""
    times = pd.DatetimeIndex(["1981-12-31 23:59", "1982-01-01", "1984-12-31 23:59", "1985-01-01"])
    rows = harmonics(times, 1)
    day = 2 * np.pi / 365.25
    assert np.abs(rows[1] - rows[0]).max() < day and np.abs(rows[3] - rows[2]).max() < day


def test_mean_spread_and_floor():
    mean = np.zeros((3, 2, 1, 1), np.float32)
    mean[:, 0, 0, 0], mean[:, 1, 0, 0] = (10, 1, 2), (5, 0, 0)
    variance = np.zeros((3, 2, 1, 1), np.float32)
    variance[:, 0, 0, 0], variance[:, 1, 0, 0] = (4, 3, 0), (1, -3, 0)
    climatology = Climatology(mean, variance)
    times = pd.DatetimeIndex(["1980-01-01", "1980-04-01 07:30"])
    assert climatology.mean(times)[:, :, 0, 0] == pytest.approx(np.array([[11, 5], [12, 5]]))
    spread = climatology.std(times)[:, :, 0, 0]
    floor = np.sqrt(VARIANCE_FLOOR)
    assert spread == pytest.approx(np.array([[np.sqrt(7), floor], [2, 1]]), rel=1e-6)
    assert climatology.select([1]).std(times)[:, 0] == pytest.approx(climatology.std(times)[:, 1])
