"""gapzoo evaluate: the scores of gapzoo.evaluate in a table, in NetCDF and in JSON."""

import json

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from worlds import toy_archive

import gapzoo
from gapzoo import cli
from gapzoo.data.archive import Archive
from gapzoo.data.module import world_of
from gapzoo.data.output import ForecastStore
from gapzoo.data.view import as_dataset, mean_dataset
from gapzoo.evaluators import climatologies

TIMES = pd.DatetimeIndex(["1980-01-10", "1980-02-20", "1980-07-05"])
LEADS = (24, 48, 72)


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "toy.zarr"
    toy_archive(path, end="1980-12-31")
    return Archive(path)


@pytest.fixture(scope="module")
def store(archive, tmp_path_factory):
    """Four members: the truth and noise that grows with the lead."""
    path, rng = tmp_path_factory.mktemp("forecasts") / "f.zarr", np.random.default_rng(0)
    store = ForecastStore(path, world_of(archive), TIMES, LEADS, 4)
    for time in TIMES:
        for lead in LEADS:
            at = archive.times.get_indexer([time + pd.Timedelta(hours=lead)])
            noise = rng.normal(size=(4, *store.world.shape)) * lead / 24
            store.write(time, lead, archive.read("state", at) + noise)
    return path


def _run(*arguments):
    return cli.main(["evaluate", *map(str, arguments)])


def test_scores_are_those_of_evaluate_in_both_files_and_the_table(archive, store, tmp_path, capsys):
    metrics = ["rmse", "crps", "acc", "rank_histogram"]
    options = ["--regions", "global", "tropics", "land", "--seasons", "all", "DJF", "JJA"]
    code = _run(store, archive.path, "--metrics", *metrics, *options, "--output", tmp_path / "x")
    out, err = capsys.readouterr()
    assert code == 0, err
    forecast = xr.open_zarr(store, chunks=None, decode_timedelta=True)
    expected = gapzoo.evaluate(
        forecast, as_dataset(archive), metrics, climatology=mean_dataset(archive),
        regions=["global", "tropics", "land"], seasons=["all", "DJF", "JJA"],
        land=archive.static("land_sea_mask"))  # fmt: skip
    with xr.open_dataset(tmp_path / "x.scores.nc", decode_timedelta=False) as found:
        assert found["prediction_timedelta"].values.tolist() == [24, 48, 72]
        for name in ("temperature", "surface_pressure", "temperature.rank_histogram"):
            assert found[name].dims == expected[name].dims
            np.testing.assert_allclose(found[name], expected[name], rtol=1e-12)
        assert found.attrs["crps.estimator"] == "fair" and found.attrs["members"] == 4
    known = json.loads((tmp_path / "x.scores.json").read_text())
    values = np.array(known["scores"]["temperature"]["values"], float)
    np.testing.assert_allclose(values, expected["temperature"], rtol=1e-12)
    assert known["coordinates"]["region"] == ["global", "tropics", "land"]
    one = expected["temperature"].sel(season="all", region="global", metric="rmse", level=0.95)
    table = out.partition("rmse, global, all: 3 initial times")[2]
    row = next(x for x in table.splitlines() if "temperature@0.95" in x)
    assert [f"{v:.4g}" for v in one.values] == row.replace("│", " ").split()[-3:]
    told = " ".join(out.split()).partition("in the files alone: ")[2]
    assert "temperature.rank_histogram" in told and "surface_pressure.rank_histogram" in told


def test_categories_and_thresholds_from_the_truths_years(archive, store, tmp_path):
    code = _run(store, archive.path, "--metrics", "rpss", "brier", "--climatology", "1979:1980",
                "--options", "brier.thresholds=270,290", "--variables", "temperature",
                "--period", "1980-01:1980-03", "--members", 3,
                "--output", tmp_path / "y")  # fmt: skip
    assert code == 0
    known = json.loads((tmp_path / "y.scores.json").read_text())
    assert known["attributes"]["initial_times"] == 2 and known["attributes"]["members"] == 3
    assert known["scores"].keys() == {"temperature", "temperature.brier"}
    truth = as_dataset(archive)[["temperature"]]
    edges = climatologies.edges(truth, climatologies.mean(truth, "1979", "1980"), "1979", "1980")
    forecast = xr.open_zarr(store, chunks=None, decode_timedelta=True)[["temperature"]]
    expected = gapzoo.evaluate(
        forecast.isel(time=slice(2), number=slice(3)), truth, ["rpss"], edges=edges
    )["temperature"]
    np.testing.assert_allclose(known["scores"]["temperature"]["values"], expected, rtol=1e-9)


def test_a_store_as_truth_with_missing_values(archive, store, tmp_path, capsys):
    truth = as_dataset(archive)[["temperature"]].isel(time=slice(360, 600)).load()
    truth["temperature"][:, :, 1, 2] = np.nan
    truth.attrs["channels"] = ["temperature@0.2", "temperature@0.95"]
    truth.to_zarr(tmp_path / "t.zarr", zarr_format=2)
    assert _run(store, tmp_path / "t.zarr", "--output", tmp_path / "z") == 2
    assert "non-finite values" in capsys.readouterr().err
    assert not list(tmp_path.glob("z*"))
    assert _run(store, tmp_path / "t.zarr", "--missing", "--output", tmp_path / "z") == 0
    known = json.loads((tmp_path / "z.scores.json").read_text())
    assert np.isfinite(np.array(known["scores"]["temperature"]["values"], float)).all()


def test_another_forecast_is_compared(archive, tmp_path, capsys):
    paths, world = [tmp_path / "a.zarr", tmp_path / "b.zarr"], world_of(archive)
    times, rng = pd.date_range("1980-01-01", periods=12, freq="6D"), np.random.default_rng(3)
    for path, noise in zip(paths, (0.5, 3.0), strict=True):
        store = ForecastStore(path, world, times, (24,), 2)
        for time in times:
            at = archive.times.get_indexer([time + pd.Timedelta(hours=24)])
            store.write(
                time, 24, archive.read("state", at) + noise * rng.normal(size=(2, *world.shape))
            )
    code = _run(
        paths[0], archive.path, "--against", paths[1], "--metrics", "rmse", "crps", "extremes"
    )
    out, err = capsys.readouterr()
    assert code == 0, err
    assert "difference to" in out and "p to" in out
    with xr.open_dataset(tmp_path / "a.against.scores.nc", decode_timedelta=False) as found:
        values = found["temperature"].sel(metric="rmse")
        assert (values.sel(compared="high") < 0).all() and (values.sel(compared="p") < 0.01).all()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--metrics", "rsme"], "did you mean 'rmse'"),
        (["--variables", "temprature"], "no variable 'temprature'; did you mean 'temperature'"),
        (["--period", "2006"], "write START:END"),
        (["--period", "2006:2007"], "no initial time in 2006:2007"),
        (["--metrics", "rpss"], "rpss needs --climatology START:END"),
        (["--options", "brier"], "write METRIC.ARGUMENT=VALUE"),
        (["--regions", "tropic"], "did you mean 'tropics'"),
        (["--seasons", "winter"], "no season 'winter'"),
    ],
)
def test_bad_arguments_are_one_line(archive, store, capsys, arguments, said):
    assert _run(store, archive.path, *arguments) == 2
    err = capsys.readouterr().err
    assert said in err and err.count("\n") == 1
