"""SST that comes with the simulator: mid-month values, ice, offset."""

import numpy as np
import pandas as pd
import pytest

pytestmark = pytest.mark.speedy


@pytest.fixture(scope="module")
def sst():
    pytest.importorskip("jcm", reason="needs the package jcm")
    from gapzoo.core import Grid
    from gapzoo.speedy.boundary import Ocean

    latitude = tuple(np.linspace(-87.5, 87.5, 36))
    grid = Grid(latitude, tuple(np.arange(72) * 5.0))
    return Ocean(grid), Ocean(grid, offset=2.0)


def test_anomaly_is_the_months_own_at_its_middle_and_linear_between(sst):
    ocean, _ = sst
    days = pd.DatetimeIndex(["1997-11-15", "1997-11-30", "1997-12-15"])
    first, middle, last = ocean.anomaly(days)
    np.testing.assert_allclose(middle, (first + last) / 2, atol=1e-5)
    row, columns = 17, slice(42, 54)  # the equator, 210 to 265 E
    assert first[row, columns].mean() > 2.0  # the El Nino of 1997
    la_nina = ocean.anomaly(pd.DatetimeIndex(["1988-11-15"]))[0]
    assert la_nina[row, columns].mean() < -1.0


def test_no_anomaly_is_a_coastal_artefact(sst):
    every = pd.date_range("1979-01-15", "2013-12-15", freq="92D")
    assert np.abs(sst[0].anomaly(every)).max() < 15


def test_anomaly_enters_open_water_only_and_offset_everywhere(sst):
    ocean, warm = sst
    time = pd.DatetimeIndex(["1997-01-15"])
    mean, ice = ocean.climatology(time)
    np.testing.assert_allclose(
        ocean.sst(time), mean + (1 - ice) * ocean.anomaly(time), rtol=0, atol=1e-4
    )
    assert ice.max() > 0.9 and ice.min() == 0
    np.testing.assert_allclose(warm.sst(time) - ocean.sst(time), 2.0, atol=1e-4)


def test_climatology_closes_at_the_new_year(sst):
    """Half a day is the most that the calendar's years differ from the mean one."""
    ocean, _ = sst
    before, after = ocean.climatology(pd.DatetimeIndex(["1999-12-31 18:00", "2000-01-01"]))[0]
    december, january = ocean.climatology(pd.DatetimeIndex(["1999-12-15", "2000-01-15"]))[0]
    assert np.all(np.abs(after - before) <= 0.6 / 30.4 * np.abs(january - december) + 1e-3)
