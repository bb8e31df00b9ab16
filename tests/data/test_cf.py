"""The CF source on data sets as they come: names, units, order, calendars, several files."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from worlds import expect

from gapzoo.core import GapzooError
from gapzoo.data.archive import Archive
from gapzoo.data.build import Build
from gapzoo.data.gridded import GriddedSource
from gapzoo.data.regrid import grid_named

TRAIN = ("1900-01-01", "1900-12-31")  # no statistics
PLEV = np.array([100000.0, 85000.0, 50000.0])
VARIABLES = ["temperature", "geopotential", "2m_temperature", "mean_sea_level_pressure"]


def field(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def model(times=None, width=8, height=6) -> xr.Dataset:
    """As a climate model writes: north to south, from 180 W, Pa, degC, heights, 2 m by 'height'."""
    times = pd.date_range("2001-01-01", periods=5, freq="D") if times is None else times
    steps, shape = len(times), (len(times), 3, height, width)
    lat = -np.array(grid_named(f"{width}x{height}").latitude)
    lon = -180 + 360 / width * np.arange(width)
    coords = {
        "time": ("time", times, {"standard_name": "time", "axis": "T"}),
        "plev": ("plev", PLEV, {"standard_name": "air_pressure", "units": "Pa", "axis": "Z"}),
        "lat": ("lat", lat, {"standard_name": "latitude", "units": "degrees_north"}),
        "lon": ("lon", lon, {"standard_name": "longitude", "units": "degrees_east"}),
    }
    data = xr.Dataset(coords=coords)
    full, flat = ("time", "plev", "lat", "lon"), ("time", "lat", "lon")
    air = {"standard_name": "air_temperature"}
    data["ta"] = full, field(0, *shape) - 20, {**air, "units": "degC"}
    data["zg"] = (
        full,
        100 * field(1, *shape),
        {"standard_name": "geopotential_height", "units": "m"},
    )
    data["tas"] = flat, field(2, steps, height, width), {**air, "units": "degC"}
    data["tas"] = data.tas.assign_coords(height=2.0)
    psl = {"standard_name": "air_pressure_at_mean_sea_level", "units": "hPa"}
    data["psl"] = flat, 1000 + field(3, steps, height, width), psl
    orog = {"standard_name": "surface_altitude", "units": "m"}
    data["orog"] = ("lat", "lon"), np.abs(field(4, height, width)), orog
    return data


def build(tmp_path, path, variables=VARIABLES, **arguments) -> Archive:
    arguments = {
        "path": path if isinstance(path, list) else str(path),
        "variables": variables,
    } | arguments
    output = tmp_path / f"made{len(list(tmp_path.iterdir()))}.zarr"
    return Build("cf", arguments, output, TRAIN).run(1)


@pytest.fixture
def file(tmp_path):
    model().to_netcdf(tmp_path / "model.nc")
    return tmp_path / "model.nc"


def turned(values):
    """North to south from 180 W, to south to north from 0."""
    return np.roll(values[..., ::-1, :], -4, -1)


def test_everything_is_found_and_brought_to_gapzoo_s_own(file, tmp_path):
    archive, data = build(tmp_path, file), model()
    assert archive.grid.matches(grid_named("8x6"))
    assert archive.channels.labels[:4] == [
        "temperature@500", "temperature@850", "temperature@1000", "geopotential@500"
    ]  # fmt: skip
    read = archive.read("state", np.arange(5))
    assert np.allclose(read[:, :3], turned(data.ta.values)[:, ::-1] + 273.15)
    assert np.allclose(read[:, 3:6], turned(data.zg.values)[:, ::-1] * 9.80665, rtol=1e-6)
    assert np.allclose(read[:, 6], turned(data.tas.values) + 273.15)
    assert np.allclose(read[:, 7], turned(data.psl.values) * 100)
    orography = archive.static("geopotential_at_surface")
    assert np.allclose(orography, turned(data.orog.values) * 9.80665)


def test_a_mapping_and_units_where_the_file_has_none(tmp_path):
    data = model()
    for name in ("ta", "psl"):
        data[name].attrs = {}
    data.to_netcdf(tmp_path / "bare.nc")
    with expect(GapzooError, "bare.nc", "nothing that is 'temperature'", "mapping"):
        build(tmp_path, tmp_path / "bare.nc", ["temperature"])
    with expect(GapzooError, "'temperature' comes without units", "units: {temperature: K}"):
        build(tmp_path, tmp_path / "bare.nc", {"temperature": "ta"})
    made = build(
        tmp_path, tmp_path / "bare.nc", {"temperature": "ta"}, units={"temperature": "degC"}
    )
    assert np.allclose(made.read("state", np.array([0]))[0, 0].mean(), 253.15, atol=2)
    with expect(GapzooError, "has no 'taa' for 'temperature'; did you mean 'ta'?"):
        build(tmp_path, tmp_path / "bare.nc", {"temperature": "taa"})


def test_what_could_be_two_things_is_asked_for(file, tmp_path):
    data = model()
    data["tasmax"] = data.tas
    data.to_netcdf(tmp_path / "two.nc")
    with expect(GapzooError, "'2m_temperature' could be any of tas, tasmax", "2m_temperature: tas"):
        build(tmp_path, tmp_path / "two.nc", ["2m_temperature"])


def test_several_files_in_any_order_side_by_side_and_overlapping(tmp_path):
    whole = model(pd.date_range("2001-01-01", periods=9, freq="D"))
    upper, lower = whole[["ta", "zg"]], whole[["tas", "psl", "orog"]]
    upper.isel(time=slice(5, 9)).to_netcdf(tmp_path / "a_late.nc")
    upper.isel(time=slice(0, 5)).to_netcdf(tmp_path / "b_early.nc")
    lower.to_netcdf(tmp_path / "c_surface.nc")
    archive = build(tmp_path, tmp_path / "*.nc")
    whole.to_netcdf(tmp_path / "whole.cdf")
    one = Build(
        "cf", {"path": str(tmp_path / "whole.cdf"), "variables": VARIABLES}, tmp_path / "o", TRAIN
    )
    every = np.arange(9)
    assert np.array_equal(archive.read("state", every), one.run(1).read("state", every))
    upper.isel(time=slice(3, 9)).to_netcdf(tmp_path / "d.nc")
    paths = [str(tmp_path / n) for n in ("b_early.nc", "d.nc")]
    source = {"path": paths, "variables": ["temperature"]}
    with expect(GapzooError, "b_early.nc", "doubles in time: 2001-01-04", "2001-01-05"):
        GriddedSource(**source).spec()
    assert len(GriddedSource(**source, doubles="first").spec().times) == 9
    with expect(GapzooError, "no file is like"):
        GriddedSource(**source | {"path": str(tmp_path / "*.none")}).spec()


def test_a_model_calendar(tmp_path):
    times = xr.date_range("2003-12-01", periods=120, freq="D", calendar="noleap", use_cftime=True)
    model(times).to_netcdf(tmp_path / "noleap.nc")
    archive = build(tmp_path, tmp_path / "noleap.nc", ["mean_sea_level_pressure"])
    assert archive.attributes["calendar"] == "noleap" and len(archive.times) == 120
    edge = archive.times.get_loc(pd.Timestamp("2004-03-01"))
    assert archive.runs.tolist() == [0] * edge + [1] * (120 - edge)


def test_gaps_are_named_with_the_file(tmp_path):
    model(pd.date_range("2001-01-01", periods=9, freq="D").delete(4)).to_netcdf(tmp_path / "gap.nc")
    with expect(GapzooError, "gap.nc", "2001-01-04 00:00:00 to 2001-01-06 00:00:00", "gaps=split"):
        build(tmp_path, tmp_path / "gap.nc")
    assert build(tmp_path, tmp_path / "gap.nc", gaps="split").runs.tolist() == [0] * 4 + [1] * 4


def test_levels_below_the_ground_are_filled_from_above(tmp_path):
    data = model()
    data.ta.values[:, 0, :2] = np.nan  # 1000 hPa is below the ground there
    data.to_netcdf(tmp_path / "low.nc")
    with expect(GapzooError, "'temperature' at level 1000 lacks 33.3%", "from_above"):
        build(tmp_path, tmp_path / "low.nc", ["temperature"])
    made = build(tmp_path, tmp_path / "low.nc", ["temperature"], fill={"temperature": "from_above"})
    low = made.read("state", np.arange(5))
    assert np.array_equal(low[:, 2, 4:], low[:, 1, 4:])


def test_sigma_levels_and_their_kind(tmp_path):
    sigma = {"standard_name": "atmosphere_sigma_coordinate", "units": "1"}
    data = model().rename(plev="sigma").assign_coords(sigma=("sigma", [0.95, 0.5, 0.2], sigma))
    data.to_netcdf(tmp_path / "sigma.nc")
    archive = build(tmp_path, tmp_path / "sigma.nc", ["temperature"])
    assert archive.channels.level_kind == "sigma"
    assert archive.channels.labels == ["temperature@0.2", "temperature@0.5", "temperature@0.95"]
    hybrid = {"standard_name": "atmosphere_hybrid_sigma_pressure_coordinate"}
    data.assign_coords(sigma=("sigma", [1, 2, 3], hybrid)).to_netcdf(tmp_path / "hybrid.nc")
    with expect(GapzooError, "levels of atmosphere_hybrid_sigma", "first"):
        build(tmp_path, tmp_path / "hybrid.nc", ["temperature"])


def test_other_dimensions_and_missing_axes_are_named(file, tmp_path):
    members = model().expand_dims(number=3)
    members.to_netcdf(tmp_path / "members.nc")
    with expect(GapzooError, "dimension 'number' of 3", "select: {number: 0}"):
        build(tmp_path, tmp_path / "members.nc", ["temperature"])
    made = build(tmp_path, tmp_path / "members.nc", ["temperature"], select={"number": 1})
    assert len(made.times) == 5
    model().isel(lon=slice(0, 5)).to_netcdf(tmp_path / "region.nc")
    with expect(GapzooError, "region.nc", "longitude must be ascending, even and global"):
        build(tmp_path, tmp_path / "region.nc", ["temperature"])
    model().drop_vars("lat").to_netcdf(tmp_path / "nolat.nc")
    with expect(GapzooError, "nolat.nc has no latitude"):
        build(tmp_path, tmp_path / "nolat.nc", ["temperature"])
    with expect(GapzooError, "has no dimension 'nmber'; did you mean 'number'?"):
        build(tmp_path, tmp_path / "members.nc", ["temperature"], select={"nmber": 1})


def test_what_cannot_be_opened_is_named(tmp_path):
    (tmp_path / "text.nc").write_text("no data")
    with expect(GapzooError, "text.nc cannot be opened"):
        build(tmp_path, tmp_path / "text.nc")


def test_grib_of_our_own(tmp_path):
    """Two messages written by eccodes: read back through cfgrib with ECMWF's short names."""
    eccodes = pytest.importorskip("eccodes", reason="needs the extra grib")
    pytest.importorskip("cfgrib", reason="needs the extra grib")
    wanted = field(0, 2, 19, 36) + 250
    with (tmp_path / "t.grib").open("wb") as out:
        for hour, values in zip((0, 12), wanted, strict=True):
            gid = eccodes.codes_grib_new_from_samples("regular_ll_pl_grib1")
            keys = {
                "Ni": 36, "Nj": 19, "iDirectionIncrementInDegrees": 10,
                "jDirectionIncrementInDegrees": 10, "latitudeOfFirstGridPointInDegrees": 90,
                "latitudeOfLastGridPointInDegrees": -90, "longitudeOfFirstGridPointInDegrees": 0,
                "longitudeOfLastGridPointInDegrees": 350, "dataDate": 20100102,
                "dataTime": 100 * hour, "shortName": "t", "level": 500, "bitsPerValue": 24,
            }  # fmt: skip
            for key, value in keys.items():
                eccodes.codes_set(gid, key, value)
            eccodes.codes_set_values(gid, values.ravel())
            eccodes.codes_write(gid, out)
            eccodes.codes_release(gid)
    archive = build(tmp_path, tmp_path / "t.grib", ["temperature"])
    assert archive.channels.labels == ["temperature@500"]
    assert archive.times.tolist() == list(pd.to_datetime(["2010-01-02 00:00", "2010-01-02 12:00"]))
    assert np.allclose(archive.read("state", np.arange(2))[:, 0], wanted[:, ::-1], atol=1e-4)
    assert sorted(p.suffix for p in tmp_path.iterdir()) == [".grib", ".zarr"], "no index file"
