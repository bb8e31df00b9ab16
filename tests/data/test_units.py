"""Units: known conversions, all the usual spellings, refusals that name what is wrong."""

import pytest
from worlds import expect

from gapzoo.core import VARIABLES, GapzooError
from gapzoo.data.units import conversion, hours_of

KNOWN = [
    ("temperature", "degC", -40.0, 233.15),
    ("temperature", "°F", -40.0, 233.15),
    ("temperature", "kelvin", 250.0, 250.0),
    ("mean_sea_level_pressure", "hPa", 1013.25, 101325.0),
    ("surface_pressure", "millibars", 850.0, 85000.0),
    ("geopotential", "m**2 s**-2", 5e4, 5e4),
    ("geopotential", "m^2/s^2", 5e4, 5e4),
    ("geopotential", "J kg-1", 5e4, 5e4),
    ("geopotential", "gpm", 5000.0, 49033.25),
    ("geopotential_at_surface", "m", 100.0, 980.665),
    ("u_component_of_wind", "m/s", 3.0, 3.0),
    ("u_component_of_wind", "km h-1", 36.0, 10.0),
    ("10m_wind_speed", "knots", 10.0, 5.144444),
    ("specific_humidity", "g/kg", 5.0, 0.005),
    ("specific_humidity", "kg kg**-1", 0.005, 0.005),
    ("sea_ice_cover", "(0 - 1)", 0.5, 0.5),
    ("sea_ice_cover", "%", 50.0, 0.5),
    ("carbon_dioxide", "ppm", 410.0, 4.1e-4),
    ("vertical_velocity", "hPa/day", 86.4, 0.1),
    ("total_precipitation_6hr", "mm", 2.0, 0.002),
    ("total_precipitation_6hr", "kg m-2", 2.0, 0.002),
    ("total_precipitation_6hr", "kg m-2 s-1", 1e-4, 0.00216),
    ("total_precipitation_24hr", "mm day-1", 3.0, 0.003),
    ("toa_incident_solar_radiation", "W m**-2", 340.25, 1224900.0),
    ("total_column_water_vapour", "kg m-2", 30.0, 30.0),
]


@pytest.mark.parametrize(("variable", "units", "value", "expected"), KNOWN)
def test_known_conversions(variable, units, value, expected):
    found = conversion(variable, units, VARIABLES[variable].units)
    assert found.scale * value + found.offset == pytest.approx(expected, rel=1e-6)
    assert found.changes == (value != expected)


@pytest.mark.parametrize("variable", VARIABLES)
def test_the_table_s_own_units_change_nothing(variable):
    assert not conversion(variable, VARIABLES[variable].units, VARIABLES[variable].units).changes


def test_refusals():
    with expect(GapzooError, "'temperature' comes without units", "units: {temperature: K}"):
        conversion("temperature", None, "K")
    with expect(GapzooError, "'temperature' comes in 'Pa'", "no unit like 'K'"):
        conversion("temperature", "Pa", "K")
    with expect(
        GapzooError, "'temperature' comes in 'furlong'", "units: {temperature: ...}", "hPa"
    ):
        conversion("temperature", "furlong", "K")
    with expect(GapzooError, "'2m_temperature' comes in 'kg m-2'"):
        conversion("2m_temperature", "kg m-2", "K")


def test_hours_in_names():
    assert hours_of("total_precipitation_24hr") == 24 and hours_of("temperature") is None
