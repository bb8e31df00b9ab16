"""The xarray entry: the classes' scores, aligned times, names, lazy chunks, clear refusals."""

import weakref

import numpy as np
import pytest
import torch
import xarray as xr

from gapzoo.core import GapzooError, Grid
from gapzoo.evaluators import EVALUATORS
from gapzoo.evaluators.conservation import LATENT_HEAT
from gapzoo.evaluators.entry import evaluate
from gapzoo.evaluators.regions import region_weights
from gapzoo.evaluators.standard import plain_units
from gapzoo.evaluators.tally import months

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


class Counted:
    """Makes the blocks of a dask array, and counts how many were made and are alive at once."""

    def __init__(self, values):
        self.values, self.made, self.most, self.known = values, 0, 0, []

    def __call__(self, block_info=None):
        part = tuple(slice(*ends) for ends in block_info[None]["array-location"])
        found = self.values[part].copy()
        self.known.append(weakref.ref(found))
        self.most = max(self.most, sum(ref() is not None for ref in self.known))
        self.made += 1
        return found


@pytest.mark.parametrize("chunks", [(1, 1, 5, 1, 6, 8), (2, 1, 5, 2, 6, 8), (4, 2, 5, 1, 6, 8)])
def test_one_block_is_in_memory_at_a_time_and_each_is_read_once(forecast, truth, chunks):
    dask, da = pytest.importorskip("dask"), pytest.importorskip("dask.array")
    names = ("time", "prediction_timedelta", "number", "level", "latitude", "longitude")
    field = forecast["temperature"].transpose(*names)
    made = Counted(field.values)
    every = [(c,) * (n // c) for c, n in zip(chunks, field.shape, strict=True)]
    lazy = da.map_blocks(made, chunks=every, dtype="f4", meta=np.empty(0, "f4"))
    metrics = ["rmse", "crps", "spectrum", "extremes", "rank_histogram", "drift"]
    expected = evaluate(forecast[["temperature"]], truth, metrics)
    with dask.config.set(scheduler="synchronous"):
        chunked = xr.Dataset({"temperature": field.copy(data=lazy)})
        found = evaluate(chunked, truth, metrics, regions=["global"])
    xr.testing.assert_allclose(found, expected)
    assert made.most == 1
    assert made.made == np.prod([len(c) for c in every])


def test_chunks_on_disk_are_blocks_without_dask(forecast, truth, tmp_path):
    names = ("time", "prediction_timedelta", "number", "level", "latitude", "longitude")
    ordered = forecast[["temperature"]].transpose(*names)
    chunks = {"temperature": {"chunks": (2, 1, 5, 1, 6, 8)}}
    ordered.to_zarr(tmp_path / "f.zarr", encoding=chunks, consolidated=False)
    lazy = xr.open_zarr(tmp_path / "f.zarr", chunks=None, decode_timedelta=True, consolidated=False)
    steps = []
    found = evaluate(lazy, truth, progress=lambda *step: steps.append(step))
    xr.testing.assert_allclose(found, evaluate(ordered, truth))
    assert steps == [(i + 1, 8) for i in range(8)]


def test_seasons_are_of_the_valid_times(forecast, truth):
    seasons = ["all", "DJF", "MAM"]
    found = evaluate(forecast, truth, ["rmse", "crps", "extremes"], seasons=seasons)
    assert found["temperature"].dims[:3] == ("season", "region", "metric")
    assert found["temperature.extremes"].dims[:2] == ("season", "region")
    month = truth["time"].dt.month
    for season, inside in (("DJF", month < 3), ("MAM", month >= 3), ("all", month > 0)):
        expected = evaluate(forecast, truth, ["rmse", "crps", "extremes"], mask=inside)
        for name in expected.data_vars:
            xr.testing.assert_allclose(found[name].sel(season=season, drop=True), expected[name])
    with pytest.raises(GapzooError, match="no season 'winter'"):
        evaluate(forecast, truth, seasons=["winter"])


def test_months_of_seasons():
    assert months("DJF") == (12, 1, 2) and months("jjas") == (6, 7, 8, 9)
    assert months("NDJFM") == (11, 12, 1, 2, 3) and len(months("all")) == 12


def test_metrics_along_the_lead_have_no_lead(forecast, truth):
    ahead = forecast.sel(prediction_timedelta=LEADS)
    days = ahead["prediction_timedelta"] / np.timedelta64(1, "D")
    mean = ahead.mean("number") * 0 + _valid(truth)
    found = evaluate(mean + 3 * days, truth, ["drift", "first_nonfinite", "rmse"])
    assert found["temperature.drift"].dims == ("region", "level")
    np.testing.assert_allclose(found["temperature.drift"], 3, rtol=1e-4)
    assert (found["temperature.first_nonfinite"] == 2).all()
    mean["temperature"][3, 1, 0, 2, 2] = np.nan
    found = evaluate(mean, truth, ["first_nonfinite"])
    order = found["temperature.first_nonfinite"].sel(region="global")
    assert order.values.tolist() == [1 if level == LEVELS[0] else 2 for level in LEVELS]


def _valid(truth):
    """The truth at the valid times, (time, prediction_timedelta, ...)."""
    at = xr.DataArray(STARTS[:, None] + LEADS, dims=("start", "prediction_timedelta"))
    found = truth.sel(time=at).drop_vars("time").rename(start="time")
    return found.assign_coords(time=STARTS, prediction_timedelta=LEADS)


def test_edges_of_categories_and_an_index(forecast, truth):
    mean = truth.mean("time")
    edges = xr.concat([mean - 5, mean + 5], xr.Variable("quantile", [1 / 3, 2 / 3]))
    found = evaluate(forecast, truth, ["rpss"], edges=edges)
    metric = EVALUATORS.build("rpss", area_weights=GRID.area_weights)
    x = forecast["temperature"].transpose("time", "number", "prediction_timedelta", "level", ...)
    y = _valid(truth)["temperature"].values
    given = np.broadcast_to(edges["temperature"].values[None, :, None], (4, 2, 2, *y.shape[2:]))
    metric.update(*(torch.tensor(v.astype("f4")) for v in (x.values, y)),
                  climatology=torch.tensor(given.astype("f4")))  # fmt: skip
    np.testing.assert_allclose(found["temperature"][0, 0], metric.compute(), rtol=1e-9)
    index = xr.DataArray(np.arange(12.0) ** 2, {"time": truth["time"]}, name="nino")
    found = evaluate(forecast, truth, ["enso_regression"], index=index[::2])
    z = (np.searchsorted(truth["time"].values, STARTS[:, None] + LEADS) // 2 * 2.0) ** 2
    expected = np.polyfit(z[:, 1], y[:, 1, 0, 4, 5].astype(float), 1)[0]
    at = {"prediction_timedelta": 1, "level": 0, "latitude": 4, "longitude": 5, "region": 0}
    slope = found["temperature.enso_regression"].isel(at).sel(source="truth")
    assert slope.item() == pytest.approx(expected, rel=1e-4)
    with pytest.raises(GapzooError, match="the index has no value at 2006-02-27T06"):
        evaluate(forecast, truth, ["enso_pattern"], index=index[4:])


def test_budgets_of_whole_columns(truth):
    sigma = truth[["temperature"]].assign_coords(level=[0.25, 0.75])
    state = xr.Dataset({"temperature": sigma["temperature"]}).assign_attrs(level_kind="sigma")
    for name, value in (("u_component_of_wind", 3.0), ("v_component_of_wind", 4.0),
                        ("specific_humidity", 0.01)):  # fmt: skip
        state[name] = state["temperature"] * 0 + value
    state["surface_pressure"] = truth["mean_sea_level_pressure"] * 0 + 98066.5
    wet = state.copy(deep=True)
    wet["specific_humidity"] = wet["specific_humidity"] + xr.DataArray([0.0, 0.002], dims="level")
    found = evaluate(wet, state, ["moisture", "dry_mass", "energy", "rmse"])
    assert found["column"].dims == ("region", "metric", "prediction_timedelta")
    values = found["column"].isel(region=0, prediction_timedelta=0)
    assert values.sel(metric="moisture").item() == pytest.approx(10, rel=1e-4)
    assert values.sel(metric="dry_mass").item() == pytest.approx(-10, rel=1e-4)
    assert values.sel(metric="energy").item() == pytest.approx(10 * LATENT_HEAT, rel=1e-4)
    with pytest.raises(GapzooError, match="moisture need surface_pressure in both"):
        evaluate(wet.drop_vars("surface_pressure"), state, ["moisture"])


def test_modes_and_maps_have_names_on_their_axes(forecast, truth):
    names = ["annular_mode", "rmse_map", "annual_cycle", "brier"]
    found = evaluate(forecast, truth, names, regions=["northern_extratropics"],
                     options={"brier": {"thresholds": [250, 260]}})  # fmt: skip
    assert found["mode_score"].values.tolist()[0] == "forecast_share"
    assert found["temperature.rmse_map"].sel(latitude=-45).isnull().all()
    assert found["temperature.rmse_map"].sel(latitude=45).notnull().all()
    assert found["harmonic"].values.tolist() == ["amplitude", "day_of_maximum"]
    assert found["threshold"].values.tolist() == [250, 260]


def test_longitudes_from_the_west_and_levels_of_some_variables_alone(forecast, truth):
    expected = evaluate(forecast, truth)
    west = forecast.assign_coords(longitude=(LON + 180) % 360 - 180).sortby("longitude")
    xr.testing.assert_allclose(evaluate(west, truth), expected)
    holed = forecast.copy(deep=True).assign_attrs(
        channels=["temperature@850", "mean_sea_level_pressure"]
    )
    holed["temperature"].loc[{"level": 500}] = np.nan
    found = evaluate(holed, truth)["temperature"]
    xr.testing.assert_allclose(found, expected["temperature"].sel(level=[850]))


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


def test_a_land_mask_with_coordinates_is_turned_as_the_fields_are(forecast, truth):
    share = xr.DataArray(np.linspace(0, 1, 48).reshape(6, 8), {"latitude": LAT, "longitude": LON})
    expected = evaluate(forecast, truth, ["rmse"], regions=["land", "sea"], land=share.values)
    west = share.assign_coords(longitude=(LON + 180) % 360 - 180).sortby("longitude")
    turned = west.isel(latitude=slice(None, None, -1)).transpose("longitude", "latitude")
    for field in (share, turned, turned.expand_dims(time=[0])):
        found = evaluate(forecast, truth, ["rmse"], regions=["land", "sea"], land=field)
        xr.testing.assert_identical(found, expected)
    with pytest.raises(GapzooError, match="the land mask has another grid"):
        evaluate(forecast, truth, ["rmse"], regions=["land"], land=share[1:])


def test_references_of_other_levels_or_points_are_refused(forecast, truth):
    climatology = truth.mean("time")
    with pytest.raises(GapzooError, match=r"climatology of temperature: no level \[850\]"):
        evaluate(forecast, truth, ["acc"], climatology=climatology.sel(level=[500]))
    moved = climatology.assign_coords(latitude=LAT * 0.98)
    with pytest.raises(GapzooError, match=r"of temperature: other latitudes than the fore"):
        evaluate(forecast, truth, ["acc"], climatology=moved)
    with pytest.raises(GapzooError, match=r"mask of temperature: no level \[500\]"):
        evaluate(forecast, truth, ["rmse"], mask=truth.sel(level=[850]) > 0)


@pytest.mark.parametrize(
    ("units", "others"), [("m/s", "m s**-1"), ("m s-1", "m / s"), ("kg/kg", "kg kg**-1")]
)
def test_units_may_be_written_in_several_ways(units, others):
    assert plain_units(units) == plain_units(others) != plain_units("K")


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
    with pytest.raises(GapzooError, match=r"metric 'rpss' needs edges=\.\.\."):
        evaluate(forecast, truth, ["rpss"], climatology=truth.mean("time"))
    with pytest.raises(GapzooError, match=r"metric 'enso_pattern' needs index=\.\.\."):
        evaluate(forecast, truth, ["enso_pattern"])
    celsius = truth.copy(deep=True)
    for data, units in ((forecast, "K"), (celsius, "degC")):
        data["temperature"].attrs["units"] = units
    with pytest.raises(GapzooError, match="temperature: the forecast is in K, the truth in degC"):
        evaluate(forecast, celsius)
    kinds = [d.assign_attrs(level_kind=k) for d, k in ((forecast, "sigma"), (truth, "pressure"))]
    with pytest.raises(GapzooError, match="forecast on sigma levels, truth on pressure levels"):
        evaluate(*kinds)
