"""Forecasts made elsewhere: scored as our own are, whatever their axes are called and ordered."""

import pandas as pd
import pytest
import xarray as xr
from models import saved, toy_forecaster, toy_prior
from worlds import expect, toy_archive

from gapzoo.core import GapzooError
from gapzoo.data.output import ForecastStore
from gapzoo.leaderboard import entries, rows
from gapzoo.leaderboard.forecasts import ClimatologyForecast
from gapzoo.leaderboard.methods import members_of, setting_of
from gapzoo.leaderboard.protocol import Protocol

M = 4
PROTOCOL = Protocol(
    name="toy-weather",
    track="weather",
    world="toy",
    period=["1980-01-01", "1980-12-31"],
    cases=3,
    members=M,
    lead_days=2,
    hours=24,
)


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    path = tmp_path_factory.mktemp("folder") / "toy.zarr"
    return toy_archive(path, ("1979-01-01", "1979-12-31"), segment_shards=99)


@pytest.fixture(scope="module")
def store(archive, tmp_path_factory):
    """The climatology entry's own forecasts, written to disk; its scores are the known answer."""
    setting = setting_of(archive, [])
    world, method = setting.world, ClimatologyForecast(setting, PROTOCOL)
    times = archive.times[PROTOCOL.positions(archive, world, 48)]
    path = tmp_path_factory.mktemp("made") / "theirs.zarr"
    made = ForecastStore(path, world, times, [24, 48], M, attributes={"title": "theirs"})
    for time in times:
        generator = members_of(PROTOCOL.seed, M, "forecast", time)
        for later, state in method.run(None, time, None, generator):
            physical = world.denormalise(state[None], pd.DatetimeIndex([later]))[0]
            made.write(time, int((later - time).total_seconds() // 3600), physical)
    return path


@pytest.fixture(scope="module")
def known(archive):
    return rows.run(PROTOCOL, archive, "climatology", {})["scores"]


@pytest.fixture(scope="module")
def data(store):
    return xr.open_zarr(store, chunks=None, decode_timedelta=True).drop_vars("written").load()


def scored(archive, path):
    return rows.run(PROTOCOL, archive, "folder", {"path": str(path)})


def same(found, known):
    for lead in ("24", "48"):
        for name in ("crps", "rmse", "acc", "spread_skill"):
            assert found[lead][name] == pytest.approx(known[lead][name], rel=1e-4)


def test_a_store_scores_as_the_method_that_made_it(archive, store, known):
    row = scored(archive, store)
    same(row["scores"], known)
    assert row["told"] == {"title": "theirs"} and len(row["forecasts_sha256"]) == 16
    assert row["initial_times"][0] == "1980-01-01T00"


def test_netcdf_from_the_north_with_other_names(archive, data, known, tmp_path):
    """Latitude from the north, longitude from -180, a member too many, one file a time."""
    more = xr.concat([data, data.isel(number=[0]) + 5], "number").assign_coords(number=range(M + 1))
    west = (more["longitude"].values + 180) % 360 - 180
    other = (
        more.assign_coords(longitude=west).sortby("longitude").sortby("latitude", ascending=False)
    )
    other = other.rename(latitude="lat", longitude="lon", number="realization")
    for n in range(other.sizes["time"]):
        other.isel(time=[n]).to_netcdf(tmp_path / f"{n}.nc")
    same(scored(archive, tmp_path)["scores"], known)


def test_one_deterministic_forecast(archive, data, tmp_path):
    """Its CRPS is its absolute error; it has no spread."""
    data.mean("number").to_netcdf(tmp_path / "mean.nc")
    found = scored(archive, tmp_path / "mean.nc")["scores"]["24"]
    assert "spread_skill" not in found and "ranks" not in found
    assert found["crps"] < found["rmse"]


BAD = [
    (lambda d: d.drop_vars("surface_pressure"), "lacks 'surface_pressure'"),
    (lambda d: d.isel(level=[0]), "lacks 'temperature@0.95'; its levels are 0.2"),
    (lambda d: d.isel(latitude=slice(1, None)), "'latitude' has 3 points"),
    (lambda d: d.assign_coords(longitude=d["longitude"] + 1), "'longitude' has 8 points from 1"),
    (lambda d: d.isel(prediction_timedelta=[0]), "'prediction_timedelta' lacks 48 h"),
    (lambda d: d.isel(number=[0, 1]), "'number' has 2 members, protocol 'toy-weather' has 4"),
    (lambda d: d.isel(time=[0, 2]), "lacks 1 of 3 initial times"),
    (lambda d: d.rename(prediction_timedelta="step"), "no dimension 'prediction_timedelta'"),
    (lambda d: d.assign_attrs(level_kind="pressure"), "levels are of kind pressure, not sigma"),
    (lambda d: d.where(d["number"] > 0), "'temperature@0.2' from 1980-01-01", "not finite"),
    (lambda d: in_hectopascal(d), "'surface_pressure' is in hPa, not Pa"),
]


def in_hectopascal(data):
    data = data.copy()
    data["surface_pressure"] = (data["surface_pressure"] / 100).assign_attrs(units="hPa")
    return data


@pytest.mark.parametrize("case", BAD, ids=lambda c: c[1])
def test_what_differs_is_named(archive, data, tmp_path, case):
    change, *parts = case
    change(data).to_netcdf(tmp_path / "bad.nc")
    with expect(GapzooError, *parts):
        scored(archive, tmp_path / "bad.nc")


def test_what_is_no_store_is_refused(archive, tmp_path):
    (tmp_path / "broken.nc").write_text("nothing")
    for path, part in ((tmp_path / "broken.nc", "cannot be read"), (tmp_path / "x", "no Zarr")):
        with expect(GapzooError, path.name, part):
            scored(archive, path)


def test_other_bytes_are_other_forecasts(archive, data, tmp_path):
    """So that a resumed run never joins cases of two versions."""
    hashes = []
    for n in range(2):
        (data + n).to_netcdf(tmp_path / "a.nc")
        hashes.append(scored(archive, tmp_path / "a.nc")["forecasts_sha256"])
    assert hashes[0] != hashes[1]


def test_entries_as_users_write_them(tmp_path):
    file = tmp_path / "fast.yaml"
    file.write_text("entry: gap\nprior: a\nsteps: 6\n")
    found = entries.resolve([str(file), "steps=2"])
    assert (found.method, found.name) == ("gap", "fast")
    assert found.options == {"prior": "a", "steps": 2}
    found = entries.resolve(["gap", "prior=a", "forcing=false"])
    assert found == entries.Entry("gap", {"prior": "a", "forcing": False}, "gap")
    found = entries.resolve(["made/graphs.zarr"])
    assert found == entries.Entry("folder", {"path": "made/graphs.zarr"}, "graphs")
    for words, part in (([], "no entry"), (["a=b"], "no entry"), (["no.yaml"], "cannot be read")):
        with expect(GapzooError, part):
            entries.resolve(words)
    file.write_text("steps: 3\n")
    with expect(GapzooError, "fast.yaml", "'entry: METHOD'"):
        entries.resolve([str(file)])


def test_checkpoints_are_entries(archive, tmp_path):
    """By folder or by name: a prior draws, a forecaster carries forward."""
    made = saved(toy_prior(archive), tmp_path / "prior")
    found = entries.resolve([str(made), "steps=2"])
    assert found == entries.Entry("gap", {"prior": str(made), "steps": 2}, "prior")
    found = entries.resolve(["convcast_small.speedy-t21-v3"])
    assert (found.method, list(found.options)) == ("convcast", ["forecaster"])
    made = saved(toy_forecaster(archive, model="crpscast_small"), tmp_path / "generator")
    assert entries.resolve([str(made)]).method == "crpscast"
    (tmp_path / "stores").mkdir()
    assert entries.resolve([str(tmp_path / "stores")]).method == "folder"


def test_recipes_of_tasks_are_entries(tmp_path):
    """Their networks and settings, with bases; what the protocol fixes stays out."""
    base = "prior: a\nforecaster: b\nmembers: 99\ntimes: [2010-01-01]\nsampling: {steps: 6}\n"
    (tmp_path / "base.yaml").write_text(base)
    (tmp_path / "mine.yaml").write_text("base: base.yaml\ninflation: 1.2\nhours: 6\n")
    found = entries.resolve([str(tmp_path / "mine.yaml"), "steps=8"])
    options = {"prior": "a", "forecaster": "b", "inflation": 1.2, "steps": 8}
    assert found == entries.Entry("gap", options, "mine")
    alone = tmp_path / "alone.yaml"
    for forecaster, method in (("b", "convcast"), ("speedy", "speedy")):
        alone.write_text(f'prior: ""\nforecaster: {forecaster}\nperturb: 0.05\n')
        found = entries.resolve([str(alone)])
        assert found.method == method
        assert found.options == ({"forecaster": "b"} if method == "convcast" else {})
