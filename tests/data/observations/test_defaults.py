"""Units, heights and errors that a table leaves to its type."""

import numpy as np
import pandas as pd
import pytest

from gapzoo.core import GapzooError
from gapzoo.data.observations import STANDARD_ERRORS, Observations
from gapzoo.data.observations.defaults import ERRORS_BY_TYPE
from gapzoo.data.observations.form import standard_pressure


def table(**columns) -> pd.DataFrame:
    given = {"time": "2008-12-08T12", "latitude": 50.0, "longitude": 8.0, **columns}
    return pd.DataFrame({k: v if isinstance(v, list) else [v] for k, v in given.items()})


def test_errors_by_type_variable_and_level():
    places = [("radiosonde", 1000.0), ("radiosonde", np.sqrt(1000 * 700)), ("radiosonde", 10.0)]
    rows = [
        table(variable="u_component_of_wind", level=level, value=1.0, type=kind)
        for kind, level in [*places, ("aircraft", 500.0), ("sodar", 500.0)]
    ]
    errors = Observations(pd.concat(rows)).table["error"]
    # Linear in ln p between 1.9 at 1000 hPa and 2.0 at 700 hPa; the top value above 30 hPa.
    np.testing.assert_allclose(errors, [1.9, 1.95, 2.2, 3.0, 1.0])
    ground = table(variable="u_component_of_wind", level=1.0, value=1.0, type="radiosonde")
    assert Observations(ground, "sigma").table["error"].tolist() == [1.9]
    given = table(variable="surface_pressure", value=1e5, error=250.0, type="ship")
    assert Observations(given).table["error"].tolist() == [250.0]


@pytest.mark.parametrize("kind", ERRORS_BY_TYPE)
def test_every_default_error_is_positive_and_of_a_known_variable(kind):
    for variable, error in ERRORS_BY_TYPE[kind].items():
        values = [error] if isinstance(error, float) else [size for _, size in error]
        assert variable in STANDARD_ERRORS and min(values) > 0


def test_units_are_converted_with_their_errors():
    rows = [
        table(variable="2m_temperature", value=41.0, units="degF", error=1.8, type="metar"),
        table(variable="surface_pressure", value=1013.25, units="hPa", type="synop"),
        table(variable="10m_wind_speed", value=10.0, units="kt", error=2.0),
        table(variable="2m_temperature", value=290.0, units=None, error=1.0),
    ]
    found = Observations(pd.concat(rows)).table
    expected = [278.15, 101325.0, 18520 / 3600, 290.0]
    np.testing.assert_allclose(found["value"], expected, rtol=1e-9)
    # A default is in SI units already.
    np.testing.assert_allclose(found["error"], [1.0, 100.0, 3704 / 3600, 1.0], rtol=1e-9)
    with pytest.raises(GapzooError, match="furlong"):
        Observations(table(variable="10m_wind_speed", value=1.0, units="furlong/fortnight"))


def test_heights_give_levels_of_the_standard_atmosphere():
    # ICAO Doc 7488: 500, 250, 100 hPa lie at 5574, 10363 and 16180 m.
    heights = [0.0, 5574.4, 10362.9, 16179.7]
    np.testing.assert_allclose(standard_pressure(heights), [1013.25, 500, 250, 100], rtol=2e-4)
    rows = [
        table(variable="temperature", value=250.0, height=5574.4),
        table(variable="temperature", value=250.0, height=100.0, level=700.0),
        table(variable="surface_pressure", value=9e4, height=1000.0),
    ]
    found = Observations(pd.concat(rows)).levels_from_height().table["level"]
    np.testing.assert_allclose(found, [500, 700, np.nan], rtol=2e-4)
    with pytest.raises(GapzooError, match="height inf"):
        Observations(table(variable="temperature", value=250.0, level=500.0, height=np.inf))
