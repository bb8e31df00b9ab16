"""One field is found by what is said of it; what does not exist is named."""

import numpy as np
import pandas as pd
import pytest
from worlds import expect, toy_archive

from gapzoo.core import GapzooError
from gapzoo.data.module import world_of
from gapzoo.data.output import ForecastStore
from gapzoo.data.picking import Pick, pick

START = pd.Timestamp("1980-03-01")


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    return toy_archive(tmp_path_factory.mktemp("pick") / "toy.zarr", end="1980-12-31")


@pytest.fixture(scope="module")
def forecast(archive, tmp_path_factory):
    """Members at 24 and 48 h: the truth and -1, 0 or 1, and the lead in days; 72 h is open."""
    path = tmp_path_factory.mktemp("pick") / "forecast.zarr"
    world = world_of(archive)
    store = ForecastStore(path, world, pd.DatetimeIndex([START]), (24, 48, 72), 3)
    for lead in (24, 48):
        truth = archive.read("state", archive.indices(*[str(START + pd.Timedelta(hours=lead))] * 2))
        store.write(START, lead, np.stack([truth[0] + k + lead / 24 for k in (-1, 0, 1)]))
    return path


def test_of_an_archive(archive):
    found = pick(archive.path, Pick("temperature@0.2", time="1979-05-02"))
    row = archive.times.get_loc(pd.Timestamp("1979-05-02"))
    assert np.array_equal(found.values, archive.read("state", np.array([row]))[0, 0])
    assert (found.label, found.units) == ("temperature@0.2", "K")
    assert found.title == "temperature at 0.2, 1979-05-02 00:00"
    assert np.array_equal(found.land, archive.static("land_sea_mask"))
    last = pick(str(archive.path), Pick("temperature", 0.95))
    assert last.time == archive.times[-1] and last.label == "temperature@0.95"
    assert pick(archive.path, Pick("surface_pressure")).label == "surface_pressure"
    sst = pick(archive.path, Pick("sea_surface_temperature", time="1979-05-02"))
    assert np.array_equal(sst.values, archive.read("forcing", np.array([row]))[0, 0])
    height = pick(archive.path, Pick("geopotential_at_surface"))
    assert height.time is None and height.units == "m2 s-2"
    assert np.array_equal(height.values, archive.static("geopotential_at_surface"))


def test_of_a_forecast_and_its_error(archive, forecast):
    member = pick(forecast, Pick("temperature@0.95", lead=48, member=2))
    assert member.time == START + pd.Timedelta(hours=48) and member.lead == 48
    truth = pick(archive.path, Pick("temperature@0.95", time=member.time))
    assert np.allclose(member.minus(truth).values, 3.0, atol=1e-4)
    mean = pick(forecast, Pick("temperature@0.95", lead=48))
    assert np.allclose(mean.minus(truth).values, 2.0, atol=1e-4) and mean.member == "mean"
    assert mean.minus(truth).land is not None
    spread = pick(forecast, Pick("surface_pressure", lead=24, member="spread"))
    assert np.allclose(spread.values, 1.0, atol=0.01)
    assert spread.title == "surface pressure, ensemble spread, 1980-03-02 00:00 (+24 h)"
    assert pick(forecast, Pick("surface_pressure")).lead == 24, "the first where none is named"


def test_what_there_is_not_is_named(archive, forecast, tmp_path):
    path = archive.path
    with expect(GapzooError, "no 'temprature'", "did you mean 'temperature'"):
        pick(path, Pick("temprature"))
    with expect(GapzooError, "'temperature' has levels; take one of 0.2, 0.95"):
        pick(path, Pick("temperature"))
    with expect(GapzooError, "no level 0.5 of 'temperature'", "0.2, 0.95"):
        pick(path, Pick("temperature@0.5"))
    with expect(GapzooError, "no time 1990-01-01", "nearest is 1980-12-31", "1979-01-01"):
        pick(path, Pick("surface_pressure", time="1990-01-01"))
    with expect(GapzooError, "'soon' is no time"):
        pick(path, Pick("surface_pressure", time="soon"))
    with expect(GapzooError, "no lead of 30 h", "24, 48, 72 h"):
        pick(forecast, Pick("surface_pressure", lead=30))
    with expect(GapzooError, "'surface_pressure' at", "missing throughout"):
        pick(forecast, Pick("surface_pressure", lead=72))
    with expect(GapzooError, "no member 7", "0 to 2"):
        pick(forecast, Pick("surface_pressure", member=7))
    with expect(GapzooError, "no level 0.3", "0.2, 0.95"):
        pick(forecast, Pick("temperature@0.3"))
    with expect(GapzooError, "nothing at"):
        pick(tmp_path / "none.zarr", Pick("temperature"))
    wide = toy_archive(tmp_path / "wide.zarr", width=16, end="1979-12-31")
    pressure = Pick("surface_pressure", time="1979-05-02")
    with expect(GapzooError, "(4, 8)", "(4, 16)"):
        pick(path, pressure).minus(pick(wide.path, pressure))
