"""Time axes: every calendar keeps the season in phase; gaps and doubles are found and named."""

import cftime
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from worlds import expect

from gapzoo.core import GapzooError
from gapzoo.data.calendars import axis, monthly, thinned


def daily(calendar, start="2000-01-01", days=800, every=24):
    """As xarray decodes them from a file of that calendar."""
    units = f"hours since {start}"
    numbers = np.arange(0, days * 24, every)
    dates = cftime.num2date(numbers, units, calendar)
    return xr.DataArray(dates, dims="time", name="time")


def plain(times):
    return xr.DataArray(pd.DatetimeIndex(times), dims="time", name="time")


def test_noleap_leaves_a_gap_where_29_february_was():
    found = axis(daily("noleap"))
    assert found.times[0] == pd.Timestamp("2000-01-01") and len(found.times) == 800
    assert pd.Timestamp("2000-02-29") not in found.times
    edge = found.times.get_loc(pd.Timestamp("2000-03-01"))
    assert found.runs.tolist() == [0] * edge + [1] * (800 - edge)
    assert (found.positions == np.arange(800)).all() and found.calendar == "noleap"


def test_360_days_spread_over_the_year_in_phase():
    found = axis(daily("360_day", days=720, every=12))
    assert len(found.times) == 1440 and found.times.is_monotonic_increasing
    years = found.times.year
    assert (years == 2000).sum() == (years == 2001).sum() == 720
    fraction = (found.times[::2].dayofyear - 0.5) / np.where(years[::2] == 2000, 366, 365)
    model = (np.arange(720) % 360 + 0.5) / 360
    assert np.abs(fraction - model).max() < 1 / 365
    assert set(found.times.hour) == {0, 12}
    assert found.runs[-1] == 6 + 5, "as many days of 2000 and 2001 have no model day"
    for run in np.unique(found.runs):
        assert set(np.diff(found.times[found.runs == run])) <= {np.timedelta64(12, "h")}


def test_days_that_do_not_exist_are_left_out():
    found = axis(daily("all_leap", "2001-01-01", 366))
    assert len(found.times) == 365 and found.positions[59] == 60, "29 February 2001 is not read"
    assert not found.runs.any()


def test_standard_calendars_are_as_they_are():
    for calendar in ("standard", "proleptic_gregorian"):
        found = axis(daily(calendar, days=70))
        assert found.times.equals(pd.date_range("2000-01-01", periods=70, freq="D"))


def test_model_years_are_moved_to_where_pandas_counts():
    with expect(GapzooError, "year 1 is outside 1678", "year_shift"):
        axis(daily("noleap", "0001-01-01", 10))
    found = axis(daily("noleap", "0001-01-01", 10), year_shift=2000)
    assert found.times[9] == pd.Timestamp("2001-01-10")


def test_gaps_and_doubles_are_named():
    whole = pd.date_range("2000-01-01", periods=60, freq="6h")
    holes = whole.delete([7, 8, 30])
    with expect(
        GapzooError, "gaps in time", "2000-01-02 12:00:00 to 2000-01-03 06:00", "gaps=split"
    ):
        axis(plain(holes))
    assert np.bincount(axis(plain(holes), gaps="split").runs).tolist() == [7, 21, 29]
    twice = whole.append(whole[3:5])
    with expect(GapzooError, "doubles in time: 2000-01-01 18:00:00, 2000-01-02 00:00:00", "first"):
        axis(plain(twice))
    found = axis(plain(twice), doubles="first")
    assert found.times.equals(whole) and (found.positions == np.arange(60)).all()
    many = whole.delete(np.arange(1, 59, 3))
    with expect(GapzooError, "and 15 more"):
        axis(plain(many))
    with expect(GapzooError, "doubles is 'refuse' or 'first'"):
        axis(plain(whole), doubles="last")


def test_steps_in_any_order_are_put_in_order():
    whole = pd.date_range("2000-01-01", periods=9, freq="6h")
    order = np.random.default_rng(0).permutation(9)
    found = axis(plain(whole[order]))
    assert found.times.equals(whole) and (order[found.positions] == np.arange(9)).all()


def test_gaps_outside_the_period_do_not_matter():
    whole = pd.date_range("2000-01-01", "2000-03-01", freq="D").delete(3)
    found = axis(plain(whole), period=("2000-01-10", "2000-01-20"))
    assert len(found.times) == 11 and found.positions[0] == 8
    with expect(GapzooError, "nothing from 2001", "2000-01-01 to 2000-03-01"):
        axis(plain(whole), period=("2001", None))


def test_thinning():
    whole = axis(plain(pd.date_range("2000-01-01 06:00", periods=40, freq="6h")))
    found = thinned(whole, 24)
    assert set(found.times.hour) == {6} and found.positions.tolist() == list(range(0, 40, 4))
    with expect(GapzooError, "step of 0 days 06:00:00", "8 h"):
        thinned(whole, 8)
    half = axis(plain(pd.date_range("2000-01-01", periods=40, freq="30min")))
    with expect(GapzooError, "off the hour: 2000-01-01 00:30:00", "whole hours", "'hours'"):
        thinned(half, None)
    assert thinned(half, 6).times.equals(pd.date_range("2000-01-01", periods=4, freq="6h"))
    with expect(GapzooError, "off the hour: 2000-01-01 00:30:00, 2000-01-02 00:30:00"):
        thinned(axis(plain(pd.date_range("2000-01-01 00:30", periods=3, freq="D"))), None)


def test_what_is_no_date_is_refused():
    with expect(GapzooError, "'month' holds int64 and no dates", "times"):
        axis(xr.DataArray([1, 7], dims="month", name="month"))


@pytest.mark.parametrize(
    ("freq", "yes"), [("MS", True), ("ME", True), ("28D", False), ("D", False)]
)
def test_monthly(freq, yes):
    assert monthly(pd.date_range("2000-01-15", periods=40, freq=freq)) == yes
