"""The xarray entry: the classes' scores, aligned times, names, lazy chunks, clear refusals."""

import numpy as np
import pytest
import torch
import xarray as xr

from gapzoo.core import GapzooError, Grid
from gapzoo.evaluators import EVALUATORS
from gapzoo.evaluators.entry import evaluate
from gapzoo.evaluators.regions import region_weights

LAT, LON = np.array([-75.0, -45, -15, 15, 45, 75]), np.arange(8) * 45.0
GRID = Grid(tuple(LAT), tuple(LON))
STARTS = np.datetime64("2006-02-27T00", "ns") + np.arange(4) * np.timedelta64(12, "h")
LEADS = np.array([6, 24], "timedelta64[h]").astype("timedelta64[ns]")
LEVELS = [500, 850]


@pytest.fixture
def truth():
    times = STARTS[0] + np.arange(12) * np.timedelta64(6, "h")
    rng = np.random.default_rng(0)
    return xr.Dataset(
        {
            "temperature": (
                ("time", "level", "latitude", "longitude"),
                rng.normal(250, 10, (12, 2, 6, 8)).astype("f4"),
            ),
            "mean_sea_level_pressure": (
                ("time", "latitude", "longitude"),
                rng.normal(1e5, 500, (12, 6, 8)).astype("f4"),
            ),
        },
        {"time": times, "level": LEVELS, "latitude": LAT, "longitude": LON},
    )


@pytest.fixture
def forecast(truth):
    rng = np.random.default_rng(1)
    valid = xr.DataArray(STARTS[:, None] + LEADS, dims=("time", "prediction_timedelta"))
    base = truth.sel(time=valid.rename(time="start")).drop_vars("time").rename(start="time")
    noise = xr.DataArray(rng.normal(size=(5, 6, 8)), dims=("number", "latitude", "longitude"))
    coords = {"time": STARTS, "prediction_timedelta": LEADS, "number": np.arange(5)}
    return (base + noise).astype("f4").assign_coords(coords)


def _direct(name, forecast, truth, variable, **given):
    order = ["time", "number", "prediction_timedelta", "level", "latitude", "longitude"]
    field = forecast[variable]
    x = field.transpose(*[d for d in order if d in field.dims]).values
    valid = STARTS[:, None] + LEADS
    at = np.searchsorted(truth["time"].values, valid)
    metric = EVALUATORS.build(name, area_weights=GRID.area_weights, **given)
    metric.update(torch.tensor(x), torch.tensor(truth[variable].values[at]))
    return metric.compute().numpy()


@pytest.mark.parametrize("variable", ["temperature", "mean_sea_level_pressure"])
def test_scores_are_those_of_the_classes_at_valid_times(forecast, truth, variable):
    found = evaluate(forecast, truth, ["rmse", "crps"], regions=["global", "tropics"])
    for region in ("global", "tropics"):
        for name in ("rmse", "crps"):
            expected = _direct(name, forecast, truth, variable, region=region_weights(region, GRID))
            at = found[variable].sel(region=region, metric=name)
            np.testing.assert_allclose(at.values, expected, rtol=1e-9)
    assert found[variable].dims[:3] == ("region", "metric", "prediction_timedelta")
    assert found.attrs["crps.estimator"] == "fair" and found.attrs["initial_times"] == 4


def test_layout_does_not_matter(forecast, truth):
    expected = evaluate(forecast, truth)
    other = forecast.isel(latitude=slice(None, None, -1)).transpose("longitude", "number", ...)
    other = other.rename(number="realization", latitude="lat", longitude="lon")
    xr.testing.assert_allclose(evaluate(other, truth), expected)


def test_lazy_chunks_give_the_same(forecast, truth):
    dask = pytest.importorskip("dask")
    expected = evaluate(forecast, truth)
    with dask.config.set(scheduler="synchronous"):
        found = evaluate(forecast.chunk({"time": 1}), truth.chunk())
    xr.testing.assert_allclose(found, expected)


def test_bins_have_dimensions_of_their_own(forecast, truth):
    found = evaluate(forecast, truth, ["rank_histogram", "spectrum", "crps"],
                     options={"crps": {"estimator": "biased"}})  # fmt: skip
    assert found["temperature.rank_histogram"].dims[-1] == "rank"
    np.testing.assert_allclose(found["temperature.rank_histogram"].sum("rank"), 1)
    assert found.sizes["zonal_wavenumber"] == 5
    expected = _direct("crps", forecast, truth, "temperature", estimator="biased")
    np.testing.assert_allclose(found["temperature"][0, 0], expected, rtol=1e-9)
    assert found.attrs["crps.estimator"] == "biased"


def test_an_analysis_without_leads_or_members(truth):
    found = evaluate(truth.isel(time=slice(2, 5)) + 1.0, truth, ["bias", "crps"])
    np.testing.assert_allclose(found["temperature"].values, 1.0, rtol=1e-6)
    assert found.sizes["prediction_timedelta"] == 1


def test_climatology_of_the_valid_day(forecast, truth):
    days = xr.DataArray(np.arange(1, 367), dims="dayofyear", coords={"dayofyear": range(1, 367)})
    climatology = xr.Dataset({n: (0.1 * days + truth[n].mean("time")) for n in truth.data_vars})
    by_time = climatology.sel(dayofyear=truth["time"].dt.dayofyear).drop_vars("dayofyear")
    found = evaluate(forecast, truth, ["acc"], climatology=climatology)
    xr.testing.assert_allclose(found, evaluate(forecast, truth, ["acc"], climatology=by_time))
    constant = evaluate(forecast, truth, ["acc"], climatology=truth.mean("time"))
    assert not np.allclose(found["temperature"], constant["temperature"], atol=1e-4)


def test_missing_values_need_a_mask(forecast, truth):
    expected = evaluate(forecast, truth)
    holed = truth.copy(deep=True)
    holed["temperature"][:, :, 2, 3] = np.nan
    with pytest.raises(GapzooError, match="non-finite values"):
        evaluate(forecast, holed)
    found = evaluate(forecast, holed, mask=holed.notnull())
    assert np.isfinite(found["temperature"]).all()
    np.testing.assert_allclose(
        found["mean_sea_level_pressure"], expected["mean_sea_level_pressure"], rtol=1e-12
    )


def test_refusals_name_the_cause(forecast, truth):
    with pytest.raises(GapzooError, match="has no time 2006-02-28T12"):
        evaluate(forecast, truth.isel(time=slice(0, 5)))
    with pytest.raises(GapzooError, match=r"forecast grid \(6, 8\) and truth grid \(4, 8\)"):
        evaluate(forecast, truth.isel(latitude=slice(1, 5)))
    with pytest.raises(GapzooError, match="no variable in common"):
        evaluate(forecast[["temperature"]], truth[["mean_sea_level_pressure"]])
    with pytest.raises(GapzooError, match=r"the truth has no level \[850\]"):
        evaluate(forecast, truth.sel(level=[500]))
    with pytest.raises(GapzooError, match="did you mean 'rmse'"):
        evaluate(forecast, truth, ["rsme"])
    with pytest.raises(GapzooError, match="needs climatology"):
        evaluate(forecast, truth, ["acc"])
    with pytest.raises(GapzooError, match="no dimension 'latitude'"):
        evaluate(forecast.isel(latitude=0), truth)
