"""Paired comparison of forecasts: the classes' numbers, a clear winner, none, refusals."""

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr

from gapzoo.core import GapzooError, Grid
from gapzoo.evaluators import EVALUATORS
from gapzoo.evaluators.paired import COMPARED, compare_forecasts, most_within
from gapzoo.evaluators.significance import compare

LAT, LON = -75 + 30 * np.arange(6.0), np.arange(8) * 45.0
STARTS = pd.date_range("2006-01-01", periods=40, freq="3D")
LEADS = np.array([24, 48], "timedelta64[h]").astype("timedelta64[ns]")
DIMS = ("time", "prediction_timedelta", "number", "latitude", "longitude")


def _field(values, **coords):
    axes = {**coords, "latitude": LAT, "longitude": LON}
    return xr.Dataset({"2m_temperature": ([*axes], values.astype("f4"), {})}, axes)


@pytest.fixture(scope="module")
def truth():
    times = pd.date_range("2006-01-01", periods=130, freq="D")
    values = np.random.default_rng(0).normal(280, 5, (130, 6, 8))
    return _field(values, time=times)


def _forecast(truth, noise, seed):
    valid = xr.DataArray(STARTS.values[:, None] + LEADS, dims=("start", "prediction_timedelta"))
    y = truth["2m_temperature"].sel(time=valid).values[:, :, None]
    x = y + noise * np.random.default_rng(seed).normal(size=(40, 2, 4, 6, 8))
    return _field(x, time=STARTS, prediction_timedelta=LEADS, number=np.arange(4))


def test_numbers_are_those_of_the_classes(truth):
    first, second = _forecast(truth, 1.0, 1), _forecast(truth, 1.2, 2)
    found = compare_forecasts(
        first.chunk({"time": 7}), second, truth, block=2, resamples=200, seed=5
    )
    assert found["2m_temperature"].dims[-1] == "compared" and found.attrs["block"] == 2
    metric = EVALUATORS.build("rmse", area_weights=Grid(tuple(LAT), tuple(LON)).area_weights)
    at = [np.searchsorted(truth["time"].values, STARTS.values[:, None] + LEADS)]
    y = torch.tensor(truth["2m_temperature"].values[at[0]])
    sums = [metric.samples(torch.tensor(f["2m_temperature"].values).movedim(2, 1), y)
            for f in (first, second)]  # fmt: skip
    expected = compare(metric, *sums, block=2, resamples=200, generator=np.random.default_rng(5))
    ours = found["2m_temperature"].sel(region="global", season="all", metric="rmse")
    for name, value in (("difference", expected.value), ("low", expected.low),
                        ("high", expected.high), ("p", expected.p)):  # fmt: skip
        np.testing.assert_allclose(ours.sel(compared=name), value, rtol=1e-9)
    mean = (ours.sel(compared="first") - ours.sel(compared="second")).values
    np.testing.assert_allclose(mean, ours.sel(compared="difference"), rtol=1e-9)


def test_a_clear_winner_is_real_and_a_forecast_does_not_beat_itself(truth):
    first, second = _forecast(truth, 1.0, 1), _forecast(truth, 2.0, 2)
    regions = ["global", "tropics"]
    found = compare_forecasts(first, second, truth, ["crps"], regions=regions, resamples=200)
    values = found["2m_temperature"].to_dataset("compared")
    assert (values["high"] < 0).all() and (values["p"] < 0.01).all()
    assert found.attrs["block"] == 2 and list(found["compared"].values) == list(COMPARED)
    itself = compare_forecasts(first, first, truth, ["crps"], resamples=50)
    values = itself["2m_temperature"].to_dataset("compared")
    assert (values["difference"] == 0).all() and (values["p"] == 1).all()


def test_only_what_both_have_counts(truth):
    first, second = _forecast(truth, 1.0, 1), _forecast(truth, 1.5, 2)
    part = compare_forecasts(first.isel(time=slice(5, None)), second, truth, resamples=50)
    cut = [f.isel(time=slice(5, None)) for f in (first, second)]
    xr.testing.assert_allclose(part, compare_forecasts(*cut, truth, resamples=50))
    assert part.attrs["initial_times"] == 35


def test_refusals_name_the_cause(truth):
    first = _forecast(truth, 1.0, 1)
    with pytest.raises(GapzooError, match="'spectrum' has axes of its own"):
        compare_forecasts(first, first, truth, ["spectrum"])
    with pytest.raises(GapzooError, match="6 initial times in common are fewer than 5 blocks of 2"):
        compare_forecasts(first.isel(time=slice(6)), first, truth)
    later = first.assign_coords(time=STARTS + pd.Timedelta(hours=1))
    with pytest.raises(GapzooError, match="no 'time' in common"):
        compare_forecasts(first, later, truth)


def test_blocks_hold_what_lies_within_five_days():
    assert most_within(pd.date_range("2006", periods=9, freq="12h")) == 9
    assert most_within(pd.date_range("2006", periods=99, freq="12h")) == 10
    assert most_within(pd.date_range("2006", periods=9, freq="10D")) == 1
