"""The WeatherBench 2 source on stores of exactly that layout, of each of its grids."""

from importlib.util import find_spec

import numpy as np
import pandas as pd
import pytest
import stores
import zarr
from worlds import expect

from gapzoo.core import GapzooError
from gapzoo.data import build as building
from gapzoo.data.archive import Archive
from gapzoo.data.build import Build
from gapzoo.data.regrid import Regridder, grid_named
from gapzoo.data.solar import gathered
from gapzoo.data.sources.weatherbench2 import ATMOSPHERE, SURFACE, WeatherBench2Source

TRAIN = ("1990-01-01", "1990-12-31")  # no statistics
SHORT = {"variables": ["temperature", "2m_temperature"], "levels": [500, 850]}


@pytest.fixture(scope="module")
def coarse(tmp_path_factory):
    """64x32, all variables and levels, 8 steps; path and what it holds."""
    path = tmp_path_factory.mktemp("wb2") / "1959-2023-6h-64x32_equiangular_conservative.zarr"
    return path, stores.weatherbench2(path)


def built(tmp_path, **arguments) -> Archive:
    return Build("weatherbench2", arguments, tmp_path / "made.zarr", TRAIN).run()


def test_the_sample_is_laid_out_as_the_real_store(coarse):
    root = zarr.open_group(coarse[0], mode="r")
    assert root.metadata.zarr_format == 2
    assert root["temperature"].attrs["_ARRAY_DIMENSIONS"] == [
        "time",
        "level",
        "longitude",
        "latitude",
    ]
    assert root["temperature"].shape == (8, 13, 64, 32)
    assert root["latitude"][0] < root["latitude"][1], "south to north"


def test_the_usual_channels_by_default(coarse, tmp_path):
    path, data = coarse
    archive = built(tmp_path, path=str(path))
    assert len(archive.channels) == 69 and archive.channels.level_kind == "pressure"
    assert archive.channels.labels[:2] == ["geopotential@50", "geopotential@100"]
    every = np.arange(8)
    read = archive.read("state", every)
    for name in ATMOSPHERE:
        assert np.array_equal(read[:, archive.channels.of(name)], data[name].values), name
    for name in SURFACE:
        assert np.array_equal(read[:, archive.channels.index(name)], data[name].values), name
    forcing = archive.read("forcing", every)
    sst = data.sea_surface_temperature.fillna(273.15).values
    assert np.array_equal(forcing[:, 0], sst), "land is filled alike at all times"
    assert np.array_equal(forcing[:, 1], data.sea_ice_cover.values)
    assert np.allclose(forcing[:, 2], gathered(archive.times, archive.grid), atol=1.0)
    assert np.array_equal(archive.static("land_sea_mask"), data.land_sea_mask.values)
    assert archive.times.equals(pd.DatetimeIndex(data.time.values))
    assert "Copernicus" in archive.attributes["license"]


def test_a_subset_of_variables_levels_years_and_steps(coarse, tmp_path):
    path, data = coarse
    variables = ["total_precipitation_6hr", "temperature"]
    archive = built(
        tmp_path, path=str(path), variables=variables, levels=[850, 500], hours=12,
        start="2000-01-01", end="2000-01-01", forcings={"toa_incident_solar_radiation": None},
    )  # fmt: skip
    labels = ["total_precipitation_6hr", "temperature@850", "temperature@500"]
    assert archive.channels.labels == labels and archive.step == pd.Timedelta(hours=12)
    read = archive.read("state", np.arange(2))
    assert np.array_equal(read[:, 0], data.total_precipitation_6hr.values[:3:2])
    assert np.array_equal(read[:, 2], data.temperature.sel(level=500).values[:3:2])


def test_regridding_keeps_the_integral_and_the_sea(coarse, tmp_path):
    path, data = coarse
    archive = built(tmp_path, path=str(path), **SHORT, grid="16x9")
    field = data["2m_temperature"].values
    weights = [g.area_weights[:, None] for g in (grid_named("64x32"), archive.grid)]
    made = archive.read("state", np.arange(8))[:, -1].astype(float)
    assert (made * weights[1]).mean((1, 2)) == pytest.approx((field * weights[0]).mean((1, 2)))
    sst = Regridder(grid_named("64x32"), archive.grid)(data.sea_surface_temperature.values)
    assert np.isnan(sst).any()
    found = archive.read("forcing", np.arange(8))[:, 0]
    assert np.allclose(found, np.where(np.isnan(sst), 273.15, sst))


def test_with_poles(tmp_path):
    path = tmp_path / "6h-240x121_equiangular_with_poles_conservative.zarr"
    data = stores.weatherbench2(
        path, "240x121", steps=3, levels=(500, 850), profiles=("temperature",)
    )
    archive = built(tmp_path, path=str(path), **SHORT)
    assert archive.grid.latitude[0] == -90 and archive.grid.shape == (121, 240)
    assert np.array_equal(archive.read("state", np.arange(3))[:, :2], data.temperature.values)
    assert archive.shard < 121


def test_a_store_behind_a_url(coarse, tmp_path):
    """By fsspec, as from the cloud: chunks are fetched one by one from its memory file system."""
    path, data = coarse
    cloud = pytest.importorskip("fsspec", reason="needs the extra cloud").filesystem("memory")
    for file in (f for f in path.rglob("*") if f.is_file()):
        cloud.pipe(f"/bucket/{path.name}/{file.relative_to(path)}", file.read_bytes())
    source = {"variables": ["temperature"], "levels": [500], "hours": 12}
    archive = built(tmp_path, path=f"memory://bucket/{path.name}", **source)
    known = data.temperature.sel(level=[500]).values[::2]
    assert np.array_equal(archive.read("state", np.arange(4)), known)
    with expect(GapzooError, "memory://bucket/none.zarr cannot be opened"):
        WeatherBench2Source(path="memory://bucket/none.zarr").spec()


@pytest.mark.skipif(bool(find_spec("gcsfs")), reason="gcsfs is here")
def test_a_bucket_without_its_package_is_told():
    with expect(GapzooError, "gs://bucket/x.zarr needs gcsfs", "pip install 'gapzoo[cloud]'"):
        WeatherBench2Source(path="gs://bucket/x.zarr").spec()


def test_a_quarter_degree_from_north_to_south(tmp_path):
    """As it is, and conservatively to 240x121."""
    path = tmp_path / "wb13-6h-1440x721.zarr"
    data = stores.weatherbench2(
        path, "1440x721", steps=1, profiles=(), surface=("2m_temperature", "sea_ice_cover"), chunk=1
    )
    whole = built(tmp_path, path=str(path), variables=["2m_temperature"])
    assert np.array_equal(
        whole.read("state", np.array([0]))[0, 0], data["2m_temperature"].values[0]
    )
    source = {"path": str(path), "variables": ["2m_temperature"], "grid": "240x121"}
    made = Build("weatherbench2", source, tmp_path / "coarse.zarr", TRAIN).run()
    wanted = Regridder(whole.grid, grid_named("240x121"))(data["2m_temperature"].values)
    assert np.allclose(made.read("state", np.array([0]))[:, 0], wanted)


def test_whoever_builds_it_the_archive_is_the_same(coarse, tmp_path):
    """Two threads on four segments of two steps, killed and resumed, against one."""
    source = {"path": str(coarse[0]), **SHORT, "segment_shards": 1}
    one = Build("weatherbench2", source, tmp_path / "one.zarr", TRAIN).run(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gapzoo.data.gridded.steps_a_shard", lambda *_: 2)
        build = Build("weatherbench2", source, tmp_path / "two.zarr", TRAIN)
        with patch.context() as broken:
            real = WeatherBench2Source.blocks

            def failing(self, segment, scratch):
                if segment.number == 2:
                    raise RuntimeError("killed")
                return real(self, segment, scratch)

            broken.setattr(WeatherBench2Source, "blocks", failing)
            with pytest.raises(RuntimeError, match="killed"):
                build.run(2)
        two = build.run(2)
    assert two.shard == 2 and one.hash == two.hash
    for name in ("state", "forcing"):
        assert np.array_equal(one.read(name, np.arange(8)), two.read(name, np.arange(8)))


def test_resumed_with_other_segments_no_shard_is_left_out(coarse, tmp_path, monkeypatch):
    """The second of two segments is done; then there are four, and the second is another."""
    monkeypatch.setattr("gapzoo.data.gridded.steps_a_shard", lambda *_: 1)
    source, output = {"path": str(coarse[0]), **SHORT}, tmp_path / "made.zarr"
    build = Build("weatherbench2", {**source, "segment_shards": 4}, output, TRAIN)
    halves = WeatherBench2Source(**build.arguments)
    building.create(output, halves.spec())
    (output / ".build").mkdir()
    building._work(build, halves.segments()[1], output / ".build")
    made = Build("weatherbench2", {**source, "segment_shards": 2}, output, TRAIN).run(1)
    levels = coarse[1]["temperature"].sel(level=[500, 850]).values
    assert np.array_equal(made.read("state", np.arange(8))[:, :2], levels)


def test_refusals(coarse, tmp_path):
    path = str(coarse[0])
    with expect(GapzooError, "64x32", "has no level 123", "it has 50, 100"):
        WeatherBench2Source(path=path, levels=[123]).spec()
    with expect(GapzooError, "nothing that is '2m_temprature'", "did you mean '2m_temperature'"):
        WeatherBench2Source(path=path, variables=["2m_temprature"]).spec()
    with expect(GapzooError, "nothing from 1950", "2000-01-01 to 2000-01-02"):
        WeatherBench2Source(path=path, start="1950-01-01", end="1951-01-01").spec()
    with expect(GapzooError, "nothing at", "none.zarr"):
        WeatherBench2Source(path=str(tmp_path / "none.zarr")).spec()
    fill = {"path": path, "variables": ["sea_surface_temperature"], "fill": {}}
    archive = Build("weatherbench2", fill, tmp_path / "sst.zarr", TRAIN).run()
    assert archive.read("state", np.array([0])).min() == np.float32(273.15)
    coarse[1].drop_dims("time").to_zarr(tmp_path / "flat.zarr")
    with expect(GapzooError, "not laid out as WeatherBench 2", "no time", "source: cf"):
        WeatherBench2Source(path=str(tmp_path / "flat.zarr")).spec()


def test_missing_values_are_named(coarse, tmp_path):
    holes = coarse[1][["temperature"]].sel(level=[850]).copy(deep=True)
    holes["temperature"].values[1, 0, :8] = np.nan
    holes.to_zarr(tmp_path / "holes.zarr")
    source = {"path": str(tmp_path / "holes.zarr"), "variables": ["temperature"], "levels": [850]}
    source["forcings"] = ["toa_incident_solar_radiation"]
    with expect(GapzooError, "'temperature' at level 850 lacks 3.1%", "fill: {temperature"):
        Build("weatherbench2", source, tmp_path / "made.zarr", TRAIN).run()
