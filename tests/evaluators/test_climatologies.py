"""Climatologies, edges of categories and indices of series whose answers are known."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from gapzoo.core import GapzooError
from gapzoo.evaluators import climatologies
from gapzoo.evaluators.align import at_times
from gapzoo.evaluators.entry import evaluate

LAT, LON = -75 + 30 * np.arange(6.0), np.arange(8) * 45.0
TIMES = pd.date_range("2001-01-01", "2012-12-31", freq="D")
DAY = (TIMES.dayofyear.to_numpy() - 1) / 365.25
CYCLE = 280 + 10 * np.cos(2 * np.pi * DAY) - 3 * np.sin(4 * np.pi * DAY)


def _truth(noise=1.0, seed=0):
    """An annual cycle and white noise that is twice as strong from June to August."""
    rng = np.random.default_rng(seed)
    spread = noise * np.where(np.isin(TIMES.month, (6, 7, 8)), 2.0, 1.0)
    values = CYCLE[:, None, None] + spread[:, None, None] * rng.normal(size=(len(TIMES), 6, 8))
    dims = ("time", "latitude", "longitude")
    field = xr.DataArray(
        values.astype("f4"), {"time": TIMES, "latitude": LAT, "longitude": LON}, dims
    )
    return xr.Dataset({"2m_temperature": field})


def test_a_cycle_is_found_and_given_back_at_any_time():
    found = climatologies.mean(_truth(noise=0))["2m_temperature"]
    expected = np.zeros(9)
    expected[[0, 1, 4]] = 280, 10, -3
    np.testing.assert_allclose(found[:, 2, 3], expected, atol=2e-4)
    again = at_times(found, TIMES[[5, 900]].values)
    np.testing.assert_allclose(again[:, 4, 1], CYCLE[[5, 900]], rtol=1e-6)


def test_the_period_is_taken_and_progress_told():
    truth, seen = _truth(noise=0), []
    truth["2m_temperature"][-365:] += 100
    found = climatologies.mean(truth, "2001", "2011", progress=seen.append)["2m_temperature"]
    np.testing.assert_allclose(found[0], 280, rtol=1e-5)
    assert sum(seen) == 365 * 11 + 2
    with pytest.raises(GapzooError, match="no step from 1990 to 1991; it covers 2001"):
        climatologies.mean(truth, "1990", "1991")
    with pytest.raises(GapzooError, match=r"do not determine 4 harmonics .*give whole years"):
        climatologies.mean(truth, "2001-01", "2001-01")
    with pytest.raises(GapzooError, match="5 steps from"):
        climatologies.mean(truth, "2001-01-01", "2001-01-05")


def test_edges_are_those_of_the_noise_about_the_cycle():
    truth = _truth()
    climate = climatologies.mean(truth)
    edges = climatologies.edges(truth, climate)["2m_temperature"]
    assert edges.sizes["dayofyear"] == 366 and edges["quantile"].values.tolist() == [1 / 3, 2 / 3]
    half = ((edges[1] - edges[0]) / 2).mean(("latitude", "longitude"))
    assert half.sel(dayofyear=15).item() == pytest.approx(0.4307, abs=0.02)
    assert half.sel(dayofyear=197).item() == pytest.approx(0.8614, abs=0.03)
    middle = edges.mean(("quantile", "latitude", "longitude")).sel(dayofyear=[15, 197])
    np.testing.assert_allclose(middle, CYCLE[[14, 196]], atol=0.05)


def test_terciles_of_independent_years_hold_a_third_each_and_a_sharp_forecast_has_skill():
    edges = climatologies.edges(_truth(), climatologies.mean(_truth()))
    truth = _truth(seed=1)
    below = (truth["2m_temperature"] < at_times(edges["2m_temperature"], TIMES.values)).mean(
        ("time", "latitude", "longitude")
    )
    np.testing.assert_allclose(below, [1 / 3, 2 / 3], atol=0.01)
    rng = np.random.default_rng(5)
    members = xr.DataArray(rng.normal(size=(9, len(TIMES), 6, 8)),
                           dims=("number", "time", "latitude", "longitude"))  # fmt: skip
    sharp = (truth + 0.5 * members).isel(time=slice(0, None, 30))
    blunt = (_truth(seed=2) * 0 + CYCLE.mean() + 0 * members).isel(time=slice(0, None, 30))
    assert evaluate(sharp, truth, ["rpss"], edges=edges)["2m_temperature"].item() > 0.4
    assert evaluate(blunt, truth, ["rpss"], edges=edges)["2m_temperature"].item() < 0


def test_an_index_is_the_monthly_anomaly_over_the_box():
    sst = _truth(noise=0)["2m_temperature"].copy(deep=True)
    warm = 2 * np.sin(2 * np.pi * np.arange(len(TIMES)) / 1300)
    inside = (np.abs(LAT) < 20)[:, None] & ((LON > 150) & (LON < 260))
    sst = sst + warm[:, None, None] * inside
    sst = sst.where(~((np.abs(LAT) > 60)[:, None] & (LON < 100)))
    found = climatologies.index(sst, "box:-10,10,190,240")
    expected = pd.Series(warm, TIMES).resample("MS").mean()
    np.testing.assert_allclose(found, expected, atol=0.25)
    assert np.corrcoef(found, expected)[0, 1] > 0.99
    assert found["time"].values[1] == np.datetime64("2001-02-01")
    with pytest.raises(GapzooError, match="do not determine 4 harmonics"):
        climatologies.index(sst.isel(time=slice(0, 60)), "box:-10,10,190,240")
    daily = climatologies.index(sst, "box:-10,10,190,240", monthly=False)
    assert daily.sizes["time"] == len(TIMES)
