"""Boundary conditions and forcing variants: means kept, known decays, refusals before a run."""

import numpy as np
import pandas as pd
import pytest
from worlds import expect, flat_world, grid_of, toy_archive

from gapzoo.core import GapzooError
from gapzoo.core.climatology import evaluate
from gapzoo.data.boundary import SOLAR, Fields, Monthly, Series, Solar, yearly
from gapzoo.data.forcing import climatological, damped, decay_days, observed, persisted, require
from gapzoo.data.module import world_of

GRID = grid_of(2, 4)
MONTHS = pd.date_range("1999-01-01", periods=36, freq="MS")


def monthly(name="sea_surface_temperature", scale=1.0):
    rng = np.random.default_rng(0)
    season = np.cos(2 * np.pi * np.arange(36) / 12)[:, None, None]
    return Monthly(name, MONTHS, scale * (season + 0.2 * rng.standard_normal((36, 2, 4))))


def test_monthly_means_are_kept_exactly():
    """Trapezoids between midnights and mid-months are exact for a broken line."""
    field = monthly()
    for n, first in enumerate(MONTHS[:-1]):
        last = MONTHS[n + 1]
        edges = [first, first + (last - first) / 2, last - pd.Timedelta(milliseconds=1)]
        values = field(pd.DatetimeIndex(edges)).astype(float)
        mean = (values[0] + 2 * values[1] + values[2]) / 4
        assert mean == pytest.approx(field.means[n], abs=2e-6)


def test_monthly_values_are_continuous_and_bounded():
    ice = monthly("sea_ice_cover", 1.2)
    days = pd.date_range("1999-01-01", "2001-12-31", freq="D")
    values = ice(days)
    assert values.min() == 0.0 and values.max() == 1.0
    assert np.abs(np.diff(monthly()(days), axis=0)).max() < 0.1
    with expect(GapzooError, "'sea_surface_temperature' is not known on 2002-01-01", "2001-12-31"):
        monthly()(pd.DatetimeIndex(["2001-12-31 18:00", "2002-01-01"]))
    with expect(GapzooError, "one mean for each month in a row"):
        Monthly("sst", MONTHS.delete(3), np.zeros((35, 2, 4)))


def test_carbon_dioxide_by_years():
    co2 = yearly("carbon_dioxide", {1980: 3.38e-4, 1981: 3.40e-4}, GRID)
    times = pd.DatetimeIndex(["1980-01-02", "1980-07-02", "1981-01-01", "1981-12-30"])
    values = co2(times)
    assert values.shape == (4, *GRID.shape)
    assert values[:, 0, 0] == pytest.approx([3.38e-4, 3.38e-4, 3.39e-4, 3.4e-4], rel=1e-4)
    with expect(GapzooError, "'carbon_dioxide' is not known on 1982-06-01"):
        co2(pd.DatetimeIndex(["1982-06-01"]))


def test_fields_are_known_where_all_are():
    early = Series("a", pd.DatetimeIndex(["1990-01-01", "1995-01-01"]), np.zeros((2, 2, 4)), GRID)
    late = Series("b", pd.DatetimeIndex(["1992-01-01", "1999-01-01"]), np.ones((2, 2, 4)), GRID)
    fields = Fields({"a": early, "b": late, SOLAR: Solar(GRID)})
    assert fields.period == (pd.Timestamp("1992-01-01"), pd.Timestamp("1995-01-01"))
    assert fields(pd.DatetimeIndex(["1993-01-01"]))[0, :2, 0, 0].tolist() == [0.0, 1.0]
    with expect(GapzooError, "'a' is not known on 1996-02-03"):
        fields.require(pd.DatetimeIndex(["1993-01-01", "1996-02-03"]))


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    return toy_archive(tmp_path_factory.mktemp("forcing") / "toy.zarr")


def test_observed_is_the_archive_and_linear_between(archive):
    world = world_of(archive)
    forcing = observed(archive, world)
    rows = np.array([3, 500])
    exact = world.forcing_anomaly(archive.read("forcing", rows), archive.times[rows])
    assert forcing(archive.times[rows]) == pytest.approx(exact, abs=1e-4)
    between = forcing(archive.times[[3]] + pd.Timedelta(hours=12))
    around = forcing(archive.times[[3, 4]])
    assert between[0] == pytest.approx(around.mean(0), abs=1e-4)


def test_a_forcing_that_ends_is_refused_before_the_run_starts(archive):
    forcing = observed(archive, world_of(archive))
    first, last = archive.times[0], archive.times[-1]
    require(forcing, first, last)
    told = ("not known on 1981-03-01", "to 1980-12-31", "'sst: climatology'")
    with expect(GapzooError, "forcing of toy.zarr", *told):
        require(forcing, first, pd.Timestamp("1981-03-01"))
    for endless in (None, persisted(world_of(archive), np.zeros((2, 4, 8)))):
        require(endless, first, pd.Timestamp("2999-01-01"))


def test_variants(archive):
    world, start = world_of(archive), pd.Timestamp("1980-02-01")
    anomaly = np.random.default_rng(0).standard_normal((2, 4, 8))
    times = pd.DatetimeIndex([start, start + pd.Timedelta(days=30), start + pd.Timedelta(days=60)])
    assert not climatological(world)(times).any()
    assert persisted(world, anomaly)(times) == pytest.approx(np.stack([anomaly] * 3), abs=1e-6)
    found = damped(world, anomaly, start, 30.0)(times)
    for n in range(3):
        assert found[n] == pytest.approx(anomaly * np.exp(-n), abs=1e-6)
    each = damped(world, anomaly, start, np.array([10.0, np.inf])[:, None, None])(times)
    assert each[1, 0] == pytest.approx(anomaly[0] * np.exp(-3), abs=1e-6)
    assert each[2, 1] == pytest.approx(anomaly[1], abs=1e-6)
    with expect(GapzooError, "in days above 0"):
        damped(world, anomaly, start, 0.0)


def test_decay_time_of_a_correlation():
    assert decay_days(np.exp(-1.0), 30.0) == pytest.approx(30.0)
    assert decay_days(0.5, 30.0) == pytest.approx(30 / np.log(2))


def test_sunlight_is_computed_whatever_the_variant():
    world = flat_world(height=2, width=8)
    sunny = world.__class__(**{**world.__dict__, "forcing_channels": (SOLAR,)})
    times = pd.DatetimeIndex(["2001-06-21 12:00", "2001-06-21 18:00"])
    expected = Solar(world.grid)(times) - evaluate(world.forcing_climatology[:, 0], times)
    for variant in (climatological(sunny), persisted(sunny, np.full((1, 2, 8), 7.0))):
        assert np.array_equal(variant(times)[:, 0], expected)
    assert expected.max() > 3e6
