"""Sunlight against the almanac and against integrals known in closed form."""

import numpy as np
import pandas as pd
import pytest

from gapzoo.data.regrid import grid_named
from gapzoo.data.solar import SOLAR_CONSTANT, flux, gathered, orbit

GRID = grid_named("36x37")


def test_the_sun_of_meeus_example():
    """Astronomical Algorithms, examples 25.a and 28.a: 13 October 1992, 0 h."""
    declination, distance, equation = orbit(pd.DatetimeIndex(["1992-10-13"]))
    assert np.rad2deg(declination[0]) == pytest.approx(-7.78507, abs=1e-4)
    assert distance[0] == pytest.approx(0.99766, abs=1e-5)
    assert equation[0] * 720 / np.pi == pytest.approx(13 + 42.6 / 60, abs=0.02)  # minutes


def test_equinox_and_solstice():
    """Of 2024: 20 March 03:06, 20 June 20:51, 21 December 09:20 UTC."""
    times = pd.DatetimeIndex(["2024-03-20 03:06", "2024-06-20 20:51", "2024-12-21 09:20"])
    declination = np.rad2deg(orbit(times)[0])
    assert declination == pytest.approx([0.0, 23.4385, -23.4385], abs=5e-3)


def test_daily_means_in_closed_form():
    """S0 / (pi R^2) (H sin phi sin d + cos phi cos d sin H), sunset at cos H = -tan phi tan d."""
    day = pd.DatetimeIndex(["2003-05-11"])
    found = gathered(day, GRID, 24)[0].mean(-1) / 86400
    declination, distance, _ = orbit(day - pd.Timedelta(hours=12))
    phi = np.deg2rad(GRID.latitude)
    sunset = np.arccos(np.clip(-np.tan(phi) * np.tan(declination), -1, 1))
    known = sunset * np.sin(phi) * np.sin(declination)
    known = known + np.cos(phi) * np.cos(declination) * np.sin(sunset)
    known = SOLAR_CONSTANT / np.pi / distance**2 * known
    assert found == pytest.approx(known, abs=0.6)
    assert found[0] == 0 and found[-1] > 400, "polar night and midnight sun"


def test_the_year_s_global_mean_is_a_quarter_of_the_constant():
    days = pd.date_range("2001-01-05", "2001-12-31", freq="6D")
    total = gathered(days, GRID, 24) / 86400 * GRID.area_weights[:, None]
    assert total.mean() == pytest.approx(SOLAR_CONSTANT / 4, rel=5e-3)


def test_an_hour_is_the_integral_of_the_flux():
    """Simpson's rule between sunrises, where the flux is smooth; its trapezoid elsewhere."""
    end = pd.DatetimeIndex(["1999-08-02 14:00"])
    minutes = pd.date_range(end[0] - pd.Timedelta(hours=1), end[0], freq="30s")
    integral = np.trapezoid(flux(minutes, GRID), dx=30.0, axis=0)
    assert gathered(end, GRID)[0] == pytest.approx(integral, abs=SOLAR_CONSTANT * 0.3)


def test_parts_add_up():
    end = pd.DatetimeIndex(["1999-08-02 12:00"])
    hourly = sum(gathered(end - pd.Timedelta(hours=n), GRID) for n in range(6))
    assert gathered(end, GRID, 6) == pytest.approx(hourly, rel=1e-12)


def test_noon_is_where_it_should_be():
    """12 UTC at the equinox: the sun is over longitude 0, less the equation of time."""
    noon = flux(pd.DatetimeIndex(["2024-03-20 12:07:30"]), GRID)[0]
    row = noon[18]
    assert row.argmax() == 0 and row[0] == pytest.approx(SOLAR_CONSTANT / 0.99601**2, rel=2e-3)
    assert row[9:28].max() < 2.0
