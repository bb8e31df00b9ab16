"""What is written reads back exactly, is scored, and goes on after a kill."""

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr

from gapzoo.core import Channels, GapzooError, Grid
from gapzoo.core.climatology import Climatology
from gapzoo.core.world import World
from gapzoo.data.output import ForecastStore
from gapzoo.evaluators.entry import evaluate

LABELS = (
    "temperature@0.5",
    "temperature@0.95",
    "specific_humidity@0.95",
    "surface_pressure",
    "2m_temperature",
)
TIMES = pd.DatetimeIndex(["2006-01-31 18:00", "2006-02-01 00:00", "2006-03-01 06:00"])
LEADS = (6, 24, 240)
GRID = Grid((-67.5, -22.5, 22.5, 67.5), tuple(np.arange(8) * 45.0))


@pytest.fixture
def world() -> World:
    zeros = np.zeros((1, len(LABELS), *GRID.shape), np.float32)
    return World(
        name="toy",
        grid=GRID,
        channels=Channels(LABELS, "sigma"),
        hours=6,
        climatology=Climatology(zeros, zeros),
        diff_std=np.ones(len(LABELS)),
        forcing_channels=(),
        forcing_climatology=np.zeros((1, 0, *GRID.shape)),
        forcing_std=np.ones(0),
        static=np.zeros((0, *GRID.shape)),
        static_channels=(),
    )


def states(time: int, lead: int, members: int = 3) -> np.ndarray:
    rng = np.random.default_rng([time, lead])
    return rng.normal(280, 5, (members, len(LABELS), *GRID.shape)).astype(np.float32)


def fill(store: ForecastStore, steps) -> ForecastStore:
    for i, j in steps:
        store.write(TIMES[i], LEADS[j], states(i, j))
    return store


EVERY = [(i, j) for i in range(3) for j in range(3)]


def test_it_reads_back_exactly(tmp_path, world):
    store = fill(ForecastStore(tmp_path / "f.zarr", world, TIMES, LEADS, 3), EVERY)
    with xr.open_zarr(store.path, chunks=None, decode_timedelta=True) as found:
        assert found.time.to_index().equals(TIMES.rename("time"))
        assert (found.prediction_timedelta.values / np.timedelta64(1, "h")).tolist() == [6, 24, 240]
        assert found.number.values.tolist() == [0, 1, 2]
        assert found.level.values.tolist() == [0.5, 0.95]
        assert found.temperature.dims == (
            "time",
            "prediction_timedelta",
            "number",
            "level",
            "latitude",
            "longitude",
        )
        assert (
            found["2m_temperature"].dims == found.temperature.dims[:3] + found.temperature.dims[4:]
        )
        for i, j in EVERY:
            given, at = states(i, j), found.isel(time=i, prediction_timedelta=j)
            np.testing.assert_array_equal(at.temperature.values, given[:, :2])
            np.testing.assert_array_equal(at.specific_humidity.values[:, 1], given[:, 2])
            np.testing.assert_array_equal(at.surface_pressure.values, given[:, 3])
            np.testing.assert_array_equal(at["2m_temperature"].values, given[:, 4])
        assert np.isnan(found.specific_humidity.sel(level=0.5)).all()
        assert all(found[name].dtype == np.float32 for name in found.data_vars)


@pytest.mark.filterwarnings("error")
def test_a_plain_open_decodes_it(tmp_path, world):
    store = fill(ForecastStore(tmp_path / "f.zarr", world, TIMES, LEADS, 3), EVERY)
    with xr.open_zarr(store.path) as found:
        assert found.prediction_timedelta.dtype == "timedelta64[ns]"
        assert found.time.dtype.kind == "M" and bool((found.written == 1).all())


def test_cf_attributes(tmp_path, world):
    with ForecastStore(tmp_path / "f.zarr", world, TIMES, LEADS, 3).open() as found:
        assert found.attrs["Conventions"] == "CF-1.11" and found.attrs["level_kind"] == "sigma"
        assert found.temperature.attrs["standard_name"] == "air_temperature"
        assert found.specific_humidity.attrs["units"] == "kg kg-1"
        assert found.level.attrs["standard_name"] == "atmosphere_sigma_coordinate"
        assert found.level.attrs["positive"] == "down"
        assert found.time.attrs["standard_name"] == "forecast_reference_time"
        assert found.prediction_timedelta.attrs["standard_name"] == "forecast_period"
        assert found.number.attrs["standard_name"] == "realization"
        assert found.latitude.attrs["units"] == "degrees_north"
    pressure = Channels(["geopotential@500", "mean_sea_level_pressure"])
    store = ForecastStore(tmp_path / "p.zarr", world, TIMES, LEADS, 3, channels=pressure)
    with store.open() as found:
        assert found.level.attrs == {
            "standard_name": "air_pressure",
            "long_name": "pressure",
            "units": "hPa",
            "positive": "down",
            "axis": "Z",
        }
        assert sorted(map(str, found.data_vars)) == ["geopotential", "mean_sea_level_pressure"]


def test_a_continued_run_equals_an_uninterrupted_one(tmp_path, world):
    whole = fill(ForecastStore(tmp_path / "a.zarr", world, TIMES, LEADS, 3), EVERY)
    broken = fill(ForecastStore(tmp_path / "b.zarr", world, TIMES, LEADS, 3), EVERY[:5])
    assert broken.written(TIMES[0]) == [6, 24, 240] and broken.complete(TIMES[0])
    assert broken.written(TIMES[1]) == [6, 24] and not broken.complete(TIMES[1])
    assert broken.written(TIMES[2]) == []
    resumed = ForecastStore(tmp_path / "b.zarr", world, TIMES, LEADS, 3)
    left = [(i, j) for i, j in EVERY if LEADS[j] not in resumed.written(TIMES[i])]
    assert left == EVERY[5:]
    fill(resumed, left)
    with whole.open() as a, resumed.open() as b:
        xr.testing.assert_identical(a.load(), b.load())


def test_a_write_that_is_killed_half_way_counts_as_not_written(tmp_path, world, monkeypatch):
    store = fill(ForecastStore(tmp_path / "f.zarr", world, TIMES, LEADS, 3), EVERY[:1])
    block = store._block

    def killed(name, values):
        if name == "surface_pressure":
            raise KeyboardInterrupt
        return block(name, values)

    monkeypatch.setattr(store, "_block", killed)
    for i, j in EVERY[:2]:  # writing the first anew, and the second
        with pytest.raises(KeyboardInterrupt):
            store.write(TIMES[i], LEADS[j], states(i, j))
    resumed = ForecastStore(tmp_path / "f.zarr", world, TIMES, LEADS, 3)
    assert resumed.written(TIMES[0]) == []


def test_a_creation_that_is_killed_is_begun_anew(tmp_path, world):
    (tmp_path / "f.zarr.part").mkdir()
    (tmp_path / "f.zarr.part" / "zarr.json").write_text("{")
    store = fill(ForecastStore(tmp_path / "f.zarr", world, TIMES, LEADS, 3), EVERY)
    assert store.complete(TIMES[2]) and not (tmp_path / "f.zarr.part").exists()


def test_scores_of_what_is_written(tmp_path, world):
    """A forecast that is the truth but for 1 K, on every level and lead, has an RMSE of 1 K."""
    leads, times = (6, 12), TIMES[:2]
    valid = pd.DatetimeIndex(sorted({t + pd.Timedelta(hours=h) for t in times for h in leads}))
    truth = ForecastStore(tmp_path / "t.zarr", world, valid)
    for n, time in enumerate(valid):
        truth.write(time, None, states(n, 0, 1)[0])
    assert truth.written(valid[0]) == [0]
    forecast = ForecastStore(tmp_path / "f.zarr", world, times, leads, 3)
    for time in times:
        for lead in leads:
            n = valid.get_loc(time + pd.Timedelta(hours=lead))
            exact = states(n, 0, 1)[0]
            forecast.write(
                time, lead, torch.from_numpy(np.stack([exact - 1, exact + 1, exact + 3]))
            )
    with truth.open() as t, forecast.open() as f:
        names = ["temperature", "2m_temperature"]
        scores = evaluate(f[names], t[names], ["rmse"])
    np.testing.assert_allclose(scores.temperature.values, np.ones((1, 1, 2, 2)), rtol=1e-5)
    np.testing.assert_allclose(scores["2m_temperature"].values, np.ones((1, 1, 2)), rtol=1e-5)


def test_another_run_in_the_same_place_is_refused(tmp_path, world):
    fill(ForecastStore(tmp_path / "f.zarr", world, TIMES, LEADS, 3), EVERY[:1])
    fewer = Channels(LABELS[:2], "sigma")
    for named, arguments in {
        "number": (TIMES, LEADS, 4),
        "prediction_timedelta": (TIMES, LEADS[:2], 3),
        "time": (TIMES[:2], LEADS, 3),
    }.items():
        with pytest.raises(GapzooError, match=f"'{named}' differs"):
            ForecastStore(tmp_path / "f.zarr", world, *arguments)
    with pytest.raises(GapzooError, match="'channels' differs"):
        ForecastStore(tmp_path / "f.zarr", world, TIMES, LEADS, 3, channels=fewer)


def test_bad_states_are_refused_by_name(tmp_path, world):
    store = ForecastStore(tmp_path / "f.zarr", world, TIMES, LEADS, 3)
    bad = states(0, 0)
    bad[1, 3, 2, 2] = np.nan
    with pytest.raises(GapzooError, match="'surface_pressure' of 2006-01-31 18:00:00, lead 6 h"):
        store.write(TIMES[0], 6, bad)
    with pytest.raises(GapzooError, match="states of shape"):
        store.write(TIMES[0], 6, states(0, 0)[:2])
    with pytest.raises(GapzooError, match="no lead 12 h"):
        store.write(TIMES[0], 12, states(0, 0))
    with pytest.raises(GapzooError, match="no time 2007"):
        store.write(pd.Timestamp("2007-01-01"), 6, states(0, 0))
    assert store.written(TIMES[0]) == []


def test_years_that_nanoseconds_cannot_hold(tmp_path, world):
    """A thousand-year run is written, continued and read by its civil dates."""
    times = pd.DatetimeIndex(np.array(["2979-12-31T18", "2980-01-01T00"], "datetime64[us]"))
    for at in times:
        ForecastStore(tmp_path / "long.zarr", world, times, None, 3).write(at, None, states(0, 0))
    store = ForecastStore(tmp_path / "long.zarr", world, times, None, 3)
    assert all(store.complete(at) for at in times)
    with store.open() as data:
        assert np.array_equal(data.time.values, times.values)
