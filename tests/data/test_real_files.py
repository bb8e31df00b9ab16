"""Real files of several origins, where they are: ../shared/data beside the checkout."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from worlds import expect

from gapzoo.core import GapzooError
from gapzoo.data.build import Build
from gapzoo.data.gridded import GriddedSource

DATA = Path(__file__).parents[3] / "shared" / "data"
TRAIN = ("1900-01-01", "1900-12-31")
SUN = "toa_incident_solar_radiation"


def file(name: str) -> str:
    if not (DATA / name).exists():
        pytest.skip(f"the sample {name} is not at {DATA}")
    return str(DATA / name)


def build(tmp_path, **arguments):
    return Build("cf", arguments, tmp_path / "made.zarr", TRAIN).run(1)


def test_era5_state_of_1959(tmp_path):
    path = file("era5_tl31_19590102T00.nc")
    names = ["temperature", "specific_cloud_ice_water_content"]
    forcings = ["sea_surface_temperature", "sea_ice_cover", SUN]
    made = build(tmp_path, path=path, variables=names, forcings=forcings, levels=[500, 1000])
    assert made.times.tolist() == [pd.Timestamp("1959-01-02")]
    with xr.open_dataset(path) as data:
        known = data.temperature.sel(level=[500, 1000]).transpose("level", "latitude", "longitude")
        assert np.array_equal(made.read("state", np.array([0]))[0, :2], known.values)
        sst = data.sea_surface_temperature.transpose("latitude", "longitude").values
    found = made.read("forcing", np.array([0]))[0]
    assert np.array_equal(found[0], sst)
    assert found[1].max() <= 1.0


def test_era_interim_means_to_a_coarser_grid(tmp_path):
    path = file("eraint_uvz.nc")
    names = ["geopotential", "u_component_of_wind"]
    source = {"path": path, "variables": names, "axes": {"time": "month"}, "grid": "64x32"}
    with expect(GapzooError, "'month' holds int32 and no dates", "times"):
        GriddedSource(**source).spec()
    made = build(tmp_path, **source, times=["1999-01-16", "1999-07-16"])
    january, july = made.read("state", np.arange(2))
    assert made.channels.labels[:3] == ["geopotential@200", "geopotential@500", "geopotential@850"]
    rows = np.asarray(made.grid.latitude)
    assert january[1].mean() / 9.80665 == pytest.approx(5600, abs=120), "500 hPa height, m"
    jet = [field[3, rows > 0].mean(-1).max() for field in (january, july)]
    assert jet[0] > jet[1] + 10, "the northern jet is stronger in January"
    assert np.ptp(july[0].mean(-1)) > 0 and rows[0] < rows[-1]


def test_era5_members_from_grib(tmp_path):
    pytest.importorskip("cfgrib", reason="needs the extra grib")
    path = file("era5-levels-members.grib")
    names = ["temperature", "geopotential"]
    with expect(GapzooError, "'number' of 10", "select: {number: 0}"):
        GriddedSource(path=path, variables=names).spec()
    made = build(tmp_path, path=path, variables=names, select={"number": 3})
    assert made.grid.shape == (61, 120) and made.step == pd.Timedelta(hours=12)
    state = made.read("state", np.arange(4))
    weights = made.grid.area_weights[:, None]
    means = (state * weights).mean((0, 2, 3))
    assert means[:2] == pytest.approx([260, 281], abs=4), "K at 500 and 850 hPa"
    assert means[2] / 9.80665 == pytest.approx(5650, abs=100)


def test_ersst_as_the_forcing_of_another_data_set(tmp_path):
    """Monthly degC on 2 degrees, conservatively on the 64x32 grid, day by day, its mean kept."""
    sst = {"path": file("ersstv5_2010-2020.nc")}
    times = pd.date_range("2015-03-01", "2015-03-31", freq="D")
    state = xr.Dataset(coords={"time": times, "latitude": np.linspace(-80, 80, 9)})
    state = state.assign_coords(longitude=np.arange(0, 360, 20.0))
    field = ("time", "latitude", "longitude"), np.ones((31, 9, 18), np.float32), {"units": "Pa"}
    state["surface_pressure"] = field
    state.to_netcdf(tmp_path / "state.nc")
    source = {"path": str(tmp_path / "state.nc"), "variables": ["surface_pressure"]}
    source |= {"forcings": {"sea_surface_temperature": sst}, "grid": "64x32"}
    made = build(tmp_path, **source)
    daily = made.read("forcing", np.arange(31))[:, 0]
    tropics = np.abs(np.asarray(made.grid.latitude)) < 10
    sea = daily[0] != np.float32(273.15)
    warm = daily[:, tropics][:, sea[tropics]]
    assert 298 < warm.mean() < 303 and (daily != daily[0]).any()
    with expect(GapzooError, "'sea_surface_temperature' is not known on 2021-01-01", "2020-08-31"):
        late = state.assign_coords(time=times + pd.Timedelta(days=2133))
        late.to_netcdf(tmp_path / "late.nc")
        GriddedSource(**source | {"path": str(tmp_path / "late.nc")}).spec()
