"""The time axis of a data set: calendars made civil, doubles and gaps found and named.

An archive's times are of the proleptic Gregorian calendar. A model's own calendar is mapped so
that the season stays in phase and every step that remains keeps its hour of the day:

- ``noleap``: each date is itself; 29 February of a leap year is a gap.
- ``all_leap``, ``julian``: each date is itself; 29 February of a common year is left out.
- ``360_day``: day d = 0..359 becomes day floor((d + 1/2) N / 360) of a year of N days; the five or
  six days that no model day falls on are gaps.

Such gaps belong to the calendar: a stretch without one is a run of its own in the archive. Gaps
and doubles in the data are refused, or on demand split into runs and reduced to the first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from gapzoo.core import GapzooError

CIVIL = ("standard", "gregorian", "proleptic_gregorian", None)
MAPPED = ("noleap", "365_day", "all_leap", "366_day", "360_day", "julian")
NAMED = 5
"""How many gaps or doubles an error lists."""


@dataclass(frozen=True)
class Axis:
    """Times of a data set.

    Args:
        times: (T,) ascending, civil.
        positions: (T,) where each stands in the data set.
        runs: (T,) number of the unbroken stretch of each.
        calendar: the data set's own.
    """

    times: pd.DatetimeIndex
    positions: np.ndarray
    runs: np.ndarray
    calendar: str

    @property
    def step(self) -> pd.Timedelta:
        """The shortest time between two steps."""
        if len(self.times) < 2:
            raise GapzooError("a single time has no step; give the source 'hours'")
        return pd.Timedelta((self.times[1:] - self.times[:-1]).min())


def civil(times: xr.DataArray, year_shift: int = 0) -> tuple[pd.DatetimeIndex, np.ndarray, str]:
    """Civil times, their positions, and the calendar they came in.

    Args:
        times: (T,) of numpy or cftime dates.
        year_shift: years added, for model years such as 1 that pandas cannot hold.

    Raises:
        GapzooError: where the values are no dates, or of a calendar that is not known here.
    """
    values = np.atleast_1d(times.values)
    if np.issubdtype(values.dtype, np.datetime64) and not year_shift:
        return pd.DatetimeIndex(values), np.arange(len(values)), "proleptic_gregorian"
    if np.issubdtype(values.dtype, np.datetime64):
        values = np.array(pd.DatetimeIndex(values).to_pydatetime())
    if not all(hasattr(value, "year") for value in values):
        raise GapzooError(
            f"'{times.name}' holds {values.dtype} and no dates; give 'times', a date for each, or "
            "write its units as CF does (days since ...)"
        )
    calendar = getattr(values[0], "calendar", None)
    if calendar not in (*CIVIL, *MAPPED):
        raise GapzooError(f"calendar '{calendar}'; known: {', '.join(map(str, MAPPED))}, standard")
    found = [_date(value, calendar, year_shift) for value in values]
    keep = np.array([n for n, date in enumerate(found) if date is not None], int)
    return pd.DatetimeIndex([found[n] for n in keep]), keep, str(calendar or "standard")


def _date(value: Any, calendar: str | None, year_shift: int) -> pd.Timestamp | None:
    """The civil date of one of a calendar; None where there is no such day."""
    year = value.year + year_shift
    start = _timestamp(year, 1, 1)
    clock = pd.Timedelta(hours=value.hour, minutes=value.minute, seconds=value.second)
    if calendar == "360_day":
        day = 30 * (value.month - 1) + value.day - 1
        days = 366 if start.is_leap_year else 365
        return start + pd.Timedelta(days=int((day + 0.5) * days // 360)) + clock
    if (value.month, value.day) == (2, 29) and not start.is_leap_year:
        return None
    return _timestamp(year, value.month, value.day) + clock


def _timestamp(year: int, month: int, day: int) -> pd.Timestamp:
    if not 1678 <= year <= 2261:
        raise GapzooError(
            f"year {year} is outside 1678 to 2261; move it there with year_shift, such as 2000"
        )
    return pd.Timestamp(year, month, day)


def axis(
    times: xr.DataArray,
    *,
    period: tuple[str | None, str | None] = (None, None),
    year_shift: int = 0,
    doubles: str = "refuse",
    gaps: str = "refuse",
) -> Axis:
    """The axis of a data set's times.

    Args:
        times: (T,) of numpy or cftime dates, in any order.
        period: first and last day, inclusive, of what is kept; None is all there is.
        year_shift: years added.
        doubles: ``refuse``, or ``first`` of those alike.
        gaps: ``refuse``, or ``split`` into runs.

    Raises:
        GapzooError: naming doubles, gaps, an unknown calendar or a wrong option.
    """
    if doubles not in ("refuse", "first") or gaps not in ("refuse", "split"):
        raise GapzooError("doubles is 'refuse' or 'first', gaps is 'refuse' or 'split'")
    found, positions, calendar = civil(times, year_shift)
    order = np.argsort(found.values, kind="stable")
    found, positions = _within(found[order], positions[order], period)
    again = found.duplicated()
    if again.any() and doubles == "refuse":
        raise GapzooError(f"doubles in time: {_named(found[again])}; take the first: doubles=first")
    found, positions = found[~again], positions[~again]
    runs = _runs(found, gaps == "split" or calendar in MAPPED)
    return Axis(found, positions, runs, calendar)


def _within(
    times: pd.DatetimeIndex, positions: np.ndarray, period: tuple[str | None, str | None]
) -> tuple[pd.DatetimeIndex, np.ndarray]:
    rows = pd.Series(np.arange(len(times)), times).loc[period[0] : period[1]].to_numpy()
    if not len(rows):
        raise GapzooError(
            f"nothing from {period[0]} to {period[1]}; there are {times[0]:%Y-%m-%d} to "
            f"{times[-1]:%Y-%m-%d}"
        )
    return times[rows], positions[rows]


def _runs(times: pd.DatetimeIndex, split: bool) -> np.ndarray:
    if len(times) < 3:
        return np.zeros(len(times), np.int32)
    change = times[1:] - times[:-1]
    wide = np.asarray(change > change.min())
    if wide.any() and not split:
        edges = [f"{times[n]} to {times[n + 1]}" for n in np.flatnonzero(wide)]
        raise GapzooError(
            f"gaps in time, of a step of {change.min()}: {_named(edges)}; go on over them as runs "
            "of their own: gaps=split"
        )
    return np.concatenate([[0], np.cumsum(wide)]).astype(np.int32)


def _named(things: Any) -> str:
    listed = ", ".join(str(x) for x in list(things)[:NAMED])
    more = len(things) - NAMED
    return listed + (f" and {more} more" if more > 0 else "")


def monthly(times: pd.DatetimeIndex) -> bool:
    """Whether the times are one a month, month after month."""
    months = times.year * 12 + times.month
    return len(times) > 2 and bool((np.diff(np.asarray(months)) == 1).all())


def thinned(whole: Axis, hours: int | None) -> Axis:
    """Every so many hours from the first step on; raises GapzooError where none are that far."""
    rows = np.arange(len(whole.times))
    if hours is not None and len(rows) > 1:
        if pd.Timedelta(hours=hours) % whole.step:
            raise GapzooError(f"a step of {whole.step} cannot be thinned to {hours} h")
        midnight = whole.times[0].normalize()
        since = np.asarray((whole.times - midnight) / pd.Timedelta(hours=1), float)
        rows = rows[np.isclose((since - since[0]) % hours, 0.0)]
    times = on_the_hour(whole.times[rows])
    return Axis(times, whole.positions[rows], whole.runs[rows], whole.calendar)


def on_the_hour(times: pd.DatetimeIndex) -> pd.DatetimeIndex:
    """The times; raises GapzooError naming those that are no whole hours, as an archive's are."""
    off = times[times != times.floor("h")]
    if len(off):
        raise GapzooError(
            f"times off the hour: {_named(off)}; an archive's are whole hours: thin the steps by "
            "'hours', or give 'times', a date for each"
        )
    return times
