"""Scores of seasonal forecasts of several years: three-month means, biases taken out by lead.

With f_ym a member's three-month mean of year y, all of one start and window of months,

    f'_ym = f_ym - <f>_{years but y, members},    o'_y = o_y - <o>_{years but y}

so that a bias is known from the other years alone. Terciles are those of a normal distribution,
+-0.4307, of f' and o' over their own standard deviation in the other years (members pooled), which
calibrates the ensemble's variance too. ACC is the correlation over years of the mean of f' with o'.
Indices are plain differences of area means of sea level pressure:

    annular modes   zonal mean at 30-45 less 60-75 degrees (after Gong & Wang 1999)
    north_atlantic  40-10 W, 30-45 N less 55-70 N
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import xarray as xr

from gapzoo.core import Channel, Channels, GapzooError
from gapzoo.core.world import World
from gapzoo.data.inverse import SEA
from gapzoo.evaluators.brier import Reliability
from gapzoo.evaluators.maps import ACCMap
from gapzoo.evaluators.regions import region_weights
from gapzoo.evaluators.rpss import RPSS, ranked_probability

TERCILE = 0.4307
LEAST_YEARS = 3
PRESSURE = "mean_sea_level_pressure"
REGIONS = ("global", "tropics", "northern_extratropics", "southern_extratropics")
INDICES = {
    "northern_annular_mode": ("box:30,45,0,360", "box:60,75,0,360"),
    "southern_annular_mode": ("box:-45,-30,0,360", "box:-75,-60,0,360"),
    "north_atlantic": ("box:30,45,320,350", "box:55,70,320,350"),
}
"""Name to the regions of high and low pressure of its positive phase."""


def windows(monthly: np.ndarray, axis: int, length: int = 3) -> np.ndarray:
    """Means over each ``length`` months in a row along an axis."""
    if monthly.shape[axis] < length:
        raise GapzooError(f"{monthly.shape[axis]} months; a season takes {length}")
    view = np.lib.stride_tricks.sliding_window_view(monthly, length, axis)
    return view.mean(-1)


def others_mean(values: np.ndarray) -> np.ndarray:
    """(Y, ...) mean over the other years of (Y, ...)."""
    if len(values) < 2:
        raise GapzooError("cross-validation takes 2 years at least")
    return (values.sum(0) - values) / (len(values) - 1)


def others_spread(values: np.ndarray) -> np.ndarray:
    """(Y, ...) standard deviation over the other years and members of (Y, M, ...), no member axis.

    Args:
        values: M is 1 for truth.
    """
    years = len(values)
    if years < LEAST_YEARS:
        raise GapzooError(f"{years} years; terciles from the other years take {LEAST_YEARS}")
    found = []
    for year in range(years):
        rest = values[np.arange(years) != year].reshape(-1, *values.shape[2:])
        found.append(rest.std(0, ddof=1))
    return np.stack(found)


@dataclass(frozen=True)
class Hindcast:
    """Three-month means of one start, one window and one field.

    Args:
        forecast: (Y, M, H, W).
        truth: (Y, H, W).
        world: grid.
    """

    forecast: np.ndarray
    truth: np.ndarray
    world: World

    @cached_property
    def anomalies(self) -> tuple[np.ndarray, np.ndarray]:
        """f' and o'."""
        mean = self.forecast.mean(1)
        return self.forecast - others_mean(mean)[:, None], self.truth - others_mean(self.truth)

    @property
    def bias(self) -> np.ndarray:
        """(H, W) mean forecast less mean truth."""
        return self.forecast.mean((0, 1)) - self.truth.mean(0)

    @cached_property
    def standard(self) -> tuple[torch.Tensor, torch.Tensor]:
        """f' and o' over their spread in the other years."""
        f, o = self.anomalies
        wide = np.maximum(others_spread(f), 1e-12)[:, None]
        own = np.maximum(others_spread(o[:, None]), 1e-12)
        return torch.from_numpy(f / wide), torch.from_numpy(o / own)

    def acc(self) -> np.ndarray:
        """(H, W) correlation over years."""
        metric = ACCMap(self.world.grid.area_weights)
        f, o = (torch.from_numpy(x) for x in self.anomalies)
        metric.update(f, o, climatology=torch.zeros_like(o))
        return metric.compute().numpy()

    def regional(self, field: np.ndarray) -> dict[str, float]:
        """Means over regions of a map, points where it is not known left out."""
        found = {}
        for name in REGIONS:
            weight = region_weights(name, self.world.grid) * self.world.grid.area_weights[:, None]
            weight = np.where(np.isfinite(field), weight, 0)
            found[name] = float((np.nan_to_num(field) * weight).sum() / max(weight.sum(), 1e-12))
        return found

    def rpss(self) -> dict[str, float]:
        """Fair ranked probability skill score of terciles by region."""
        (f, o), edges = self.standard, self._edges
        found = {}
        for name in REGIONS:
            region = region_weights(name, self.world.grid)
            metric = RPSS(self.world.grid.area_weights, region=region)
            metric.update(f, o, climatology=edges)
            found[name] = float(metric.compute())
        return found

    def rpss_map(self) -> np.ndarray:
        """(H, W) over years."""
        score, climate = ranked_probability(*self.standard, self._edges)
        return (1 - score.mean(0) / climate.mean(0).clamp(min=1e-12)).numpy()

    @property
    def _edges(self) -> torch.Tensor:
        """(Y, 2, H, W)."""
        o = self.standard[1]
        sides = torch.tensor([-TERCILE, TERCILE], dtype=o.dtype)[None, :, None, None]
        return sides.expand(len(o), 2, *o.shape[1:])

    def reliability(self, region: str = "global") -> np.ndarray:
        """(10, 3) forecast probability, frequency and share of the upper tercile's event."""
        weights = region_weights(region, self.world.grid)
        metric = Reliability(self.world.grid.area_weights, thresholds=[TERCILE], region=weights)
        metric.update(*self.standard)
        return metric.compute().numpy().reshape(-1, 3)[-10:]

    def index(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Index (Y, M) of the forecasts' anomalies and (Y,) of the truth's."""
        high, low = (region_weights(r, self.world.grid) for r in INDICES[name])
        area = self.world.grid.area_weights[:, None]
        side = high * area / (high * area).sum() - low * area / (low * area).sum()
        f, o = self.anomalies
        return (f * side).sum((-2, -1)), (o * side).sum((-2, -1))

    def response(self, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(H, W) slopes of the forecasts' mean and the truth on an index (Y,)."""
        f, o = self.anomalies
        centred = index - index.mean()
        scale = max(float(centred @ centred), 1e-12)
        return tuple(np.tensordot(centred, x, 1) / scale for x in (f.mean(1), o))  # type: ignore[return-value]


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Over years; NaN where one of them is constant."""
    a, b = a - a.mean(), b - b.mean()
    size = np.sqrt((a @ a) * (b @ b))
    return float(a @ b / size) if size > 0 else float("nan")


def summary(case: Hindcast, pressure: bool = False) -> dict[str, float]:
    """Scores of one field, start and window as numbers; the indices' for sea level pressure."""
    found = {f"acc_{k}": v for k, v in case.regional(case.acc()).items()}
    found |= {f"rpss_{k}": v for k, v in case.rpss().items()}
    found["bias_rmse"] = float(np.sqrt(case.regional(case.bias**2)["global"]))
    if pressure:
        for name in INDICES:
            f, o = case.index(name)
            found[f"correlation_{name}"] = correlation(f.mean(1), o)
    return found


Months = dict[pd.Timestamp, np.ndarray]
"""Monthly means of each start that is complete, (M, L, V, H, W)."""


def read_months(folder: Path, channels: Channels) -> Months:
    """What ``gapzoo seasonal`` wrote, in memory.

    Args:
        folder: of the run.
        channels: fields that are wanted; the run may have others too.

    Raises:
        GapzooError: where there is no run, or one without a field.
    """
    path, found = folder / "monthly.zarr", Months()
    if not (path / "zarr.json").exists():
        raise GapzooError(f"{folder} holds no run of gapzoo seasonal")
    with xr.open_zarr(path, chunks=None, decode_timedelta=True) as data:
        for channel in channels:
            if channel.variable not in data:
                raise GapzooError(f"{folder} has no '{channel.label}'")
        whole = data["written"].values.all(1)
        for row in np.flatnonzero(whole):
            one = data.isel(time=int(row))
            time = pd.Timestamp(one["time"].values)
            found[time] = np.stack([_months(one, c) for c in channels], 2)
    return found


def _months(one: Any, channel: Channel) -> np.ndarray:
    """(M, L, H, W)."""
    field = one[channel.variable]
    field = field if channel.level is None else field.sel(level=channel.level)
    return field.transpose("number", "prediction_timedelta", ...).values


@dataclass(frozen=True)
class Day:
    """All years of one day of the year, every system and the truth as three-month means.

    Args:
        name: such as ``1 Nov``.
        times: starts.
        systems: name to (Y, M, L, V, H, W).
        truth: (Y, L, V, H, W).
        nino: (Y, L) Nino3.4 anomaly of the sea that was observed, K; None where unknown.
    """

    name: str
    times: pd.DatetimeIndex
    systems: dict[str, np.ndarray]
    truth: np.ndarray
    nino: np.ndarray | None

    def case(self, system: str, window: int, v: int, world: World) -> Hindcast:
        """One field and window."""
        forecast = self.systems[system][:, :, window, v]
        return Hindcast(forecast, self.truth[:, window, v], world)

    def window(self, number: int) -> str:
        """Initials of its months: DJF."""
        first = self.times[0].month - 1 + number
        return "".join("JFMAMJJASOND"[(first + n) % 12] for n in range(3))


def days_of(
    entries: Mapping[str, Months],
    truths: Months,
    nino: Callable[[pd.Timestamp], np.ndarray] | None = None,
) -> list[Day]:
    """The starts that every system has, by day of the year, with persistence as one more system.

    Args:
        entries: by name; the first is the run's own.
        truths: (1 + L, V, H, W) of each start, the month before it first.
        nino: a start to (L,) monthly Nino3.4 anomalies.
    """
    common = [t for t in truths if all(t in months for months in entries.values())]
    days = []
    for key in dict.fromkeys(f"{t:%m%d}" for t in common):
        times = pd.DatetimeIndex([t for t in common if f"{t:%m%d}" == key])
        if len(times) < LEAST_YEARS:
            continue
        truth = np.stack([truths[t] for t in times])
        systems = {n: windows(np.stack([e[t] for t in times]), 2) for n, e in entries.items()}
        systems["persistence"] = np.repeat(truth[:, None, :1], truth.shape[1] - 3, 2)
        index = None if nino is None else windows(np.stack([nino(t) for t in times]), 1)
        name = f"{times[0].day} {times[0]:%b}"
        days.append(Day(name, times, systems, windows(truth[:, 1:], 1), index))
    return days


def nino34_weights(world: World) -> np.ndarray:
    """(H, W) weights of the Nino3.4 index, whose sum is 1."""
    weight = region_weights("nino34", world.grid) * world.grid.area_weights[:, None]
    return np.asarray(weight / weight.sum())


def nino_of(
    world: World, forcing: Callable[[pd.DatetimeIndex], np.ndarray], months: int
) -> Callable[[pd.Timestamp], np.ndarray]:
    """A start to (L,) Nino3.4 anomalies of a forcing at the middle of its months."""
    weight, at = nino34_weights(world), world.forcing_channels.index(SEA)

    def found(start: pd.Timestamp) -> np.ndarray:
        middles = pd.date_range(start, periods=months, freq="MS") + pd.Timedelta(days=14)
        fields = forcing(middles)[:, at]
        return np.asarray((fields * weight).sum((-2, -1)))

    return found
