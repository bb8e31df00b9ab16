"""A record of a long run against that of a reference: mean state, variability, modes, extremes.

By calendar month n a record has counts and sums of anomalies a from the world's climatology, so

    mean_n = sum a / count,    X_n = mean_n + mean of the climatology over the same steps
    bias = 1/12 sum_n (X_n - X_n of the reference)
    variance = 1/12 sum_n (sum a^2 / count - mean_n^2)          of single steps
    annual cycle Z = 1/6 sum_n X_n exp(-i w n)
    error of the cycle = sqrt(<|Z - Z_ref|^2> / <|Z_ref|^2>)

with <.> the area mean. Monthly means less their own mean of that calendar month give the rest: the
slope of the field on the Nino3.4 index, and the leading mode of the zonal mean sea level pressure
poleward of 20 degrees (``gapzoo.evaluators.modes``); these are NaN where no calendar month is there
twice, as in a single year of one member: monthly means then have no anomalies.

The trend of a yearly global mean has the standard error of least squares with the residuals' first
autocorrelation r counted, n' = n (1 - r) / (1 + r) (Santer et al. 2000).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import zarr

from gapzoo.core import GapzooError
from gapzoo.core.world import World
from gapzoo.data.inverse import SEA
from gapzoo.evaluators.modes import leading
from gapzoo.evaluators.regions import region_weights
from gapzoo.tasks.diagnostics import Diagnostics

Forcing = Callable[[pd.DatetimeIndex], np.ndarray]
HEMISPHERES = {"southern": "southern_extratropics", "northern": "northern_extratropics"}
PRESSURE = "mean_sea_level_pressure"
MIDDLE = pd.Timedelta(days=14)
"""From the first of a month to where its forcing is taken."""


@dataclass(frozen=True)
class Record:
    """What ``gapzoo.tasks.record.Recorder`` wrote, for reading.

    Args:
        folder: of the record.
        world: of the states.
    """

    folder: Path
    world: World

    @cached_property
    def diagnostics(self) -> Diagnostics:
        """The fields that were recorded."""
        return Diagnostics(self.world)

    @cached_property
    def sums(self) -> dict[str, np.ndarray]:
        """Of ``record.npz``; raises GapzooError where no month is there."""
        path = self.folder / "record.npz"
        if not path.exists():
            raise GapzooError(f"{self.folder} holds no whole month of a run")
        with np.load(path, allow_pickle=False) as file:
            found = {name: file[name] for name in file.files}
        if "climate" not in found:
            raise GapzooError(f"{path} is of an older version; simulate again")
        return found

    @property
    def months(self) -> pd.DatetimeIndex:
        """First days of the months that are there."""
        return self._monthly[1]

    @property
    def hours(self) -> int:
        """Between steps."""
        return int((self.series[0][1] - self.series[0][0]) / pd.Timedelta(hours=1))

    @cached_property
    def _monthly(self) -> tuple[Any, pd.DatetimeIndex]:
        root: Any = zarr.open_group(self.folder / "monthly.zarr", mode="r")
        hours = np.asarray(root["time"][:])[: int(self.sums["done"])]
        stamps = pd.Timestamp("1900-01-01") + pd.to_timedelta(hours, unit="h").as_unit("us")
        return root, pd.DatetimeIndex(stamps)

    def monthly(self, label: str) -> np.ndarray:
        """(N, M, H, W) float32 monthly means of a field."""
        root, months = self._monthly
        channels = self.diagnostics.channels
        channel = channels[channels.index(label)]
        array = root[channel.variable]
        if channel.level is None:
            return np.asarray(array[: len(months)])
        levels = sorted({c.level for c in channels if c.level is not None})
        return np.asarray(array[: len(months), :, levels.index(channel.level)])

    @property
    def repeats(self) -> int:
        """How often each calendar month is there at least, over years and members."""
        counts = np.bincount(self.months.month)
        return int(counts[counts > 0].min()) * len(self.sums["year_high"])

    def anomalies(self, label: str) -> np.ndarray:
        """(N, M, H, W) monthly means less the members' mean of the calendar month."""
        found = self.monthly(label)
        for month in range(1, 13):
            here = self.months.month == month
            if here.any():
                found[here] -= found[here].mean((0, 1), dtype=np.float64).astype(np.float32)
        return found

    @cached_property
    def series(self) -> tuple[pd.DatetimeIndex, np.ndarray, list[str]]:
        """Times (T,), rows (T, M, names), names."""
        root: Any = zarr.open_group(self.folder / "series.zarr", mode="r")
        rows = np.asarray(root["series"][:])
        rows = rows[: int(np.isfinite(rows[:, 0, 0]).sum())]
        hours = int(root.attrs["hours"]) * np.arange(1, len(rows) + 1)
        start = pd.Timestamp(str(root.attrs["start"]))
        return start + pd.to_timedelta(hours, unit="h").as_unit("us"), rows, root.attrs["names"]

    def yearly(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Years (Y,) and their means over steps and members (Y,) of a column of the series.

        A year that begins or ends within is left out, unless there is no other.
        """
        times, rows, names = self.series
        values = rows[:, :, names.index(name)].mean(1)
        years, number, count = np.unique(times.year, return_inverse=True, return_counts=True)
        means = np.bincount(number, values) / count
        whole = count >= 0.97 * count.max()
        return years[whole], means[whole]

    @cached_property
    def mean(self) -> np.ndarray:
        """(12, V, H, W) mean anomalies by calendar month; NaN where there is none."""
        with np.errstate(invalid="ignore"):
            return self.sums["sum"] / self.sums["count"][:, None, None, None]

    @cached_property
    def variance(self) -> np.ndarray:
        """(V, H, W) variance of single steps about their calendar month's mean."""
        with np.errstate(invalid="ignore"):
            square = self.sums["square"] / self.sums["count"][:, None, None, None]
        return np.nanmean(square - self.mean**2, 0)

    @cached_property
    def cycle(self) -> np.ndarray:
        """(12, V, H, W) mean fields by calendar month; NaN where there is none."""
        with np.errstate(invalid="ignore"):
            whole = self.sums["sum"] + self.sums["climate"]
            return whole / self.sums["count"][:, None, None, None]

    @cached_property
    def persistence(self) -> np.ndarray:
        """(V, H, W) autocorrelation after one step, about the mean anomaly."""
        count = self.sums["count"].sum()
        mean = (self.sums["sum"].sum(0) / count) ** 2
        pairs = count - self.sums["previous"].shape[0]
        lagged, square = (self.sums[n] / pairs - mean for n in ("lagged", "lagged_square"))
        return lagged / np.maximum(square, 1e-12)

    @cached_property
    def power(self) -> np.ndarray:
        """(V, W // 2 + 1) zonal power of anomalies."""
        return self.sums["power"].sum(0) / self.sums["count"].sum()

    def extremes(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Mean of the greatest and least value of a year, (V, H, W) each; None within a year."""
        years = float(self.sums["years"])
        return (self.sums["highs"] / years, self.sums["lows"] / years) if years else None

    def mode(self, hemisphere: str) -> tuple[np.ndarray, np.ndarray, float]:
        """Annular mode of monthly sea level pressure: pattern (R,), covariance (R, R), share."""
        label = PRESSURE if PRESSURE in self.diagnostics.labels else self.diagnostics.labels[0]
        rows, weight = zonal_region(self.world, hemisphere)
        profile = self.anomalies(label).mean(-1, dtype=np.float64)[..., rows].reshape(-1, len(rows))
        covariance = profile.T @ profile / (len(profile) if self.repeats > 1 else np.nan)
        pattern, share = leading(torch.from_numpy(covariance), torch.from_numpy(weight))
        poleward = np.abs(np.asarray(self.world.grid.latitude)[rows]).argmax()
        sign = -1.0 if pattern[poleward] > 0 else 1.0
        return sign * pattern.numpy(), covariance, float(share)


def zonal_region(world: World, hemisphere: str) -> tuple[np.ndarray, np.ndarray]:
    """Rows poleward of 20 degrees, and their areas."""
    share = region_weights(HEMISPHERES[hemisphere], world.grid).mean(1) * world.grid.area_weights
    rows = np.flatnonzero(share > 0)
    return rows, share[rows]


def area_mean(world: World, field: np.ndarray) -> np.ndarray:
    """(...) of fields (..., H, W)."""
    return (field * world.grid.area_weights[:, None]).sum((-2, -1)) / (
        world.grid.area_weights.sum() * world.grid.shape[1]
    )


def trend(values: np.ndarray) -> tuple[float, float]:
    """Slope a step and its standard error; see the module. NaN for fewer than three values."""
    n = len(values)
    if n < 3:
        return float("nan"), float("nan")
    t = np.arange(n) - (n - 1) / 2
    slope = float((t * values).sum() / (t**2).sum())
    rest = values - values.mean() - slope * t
    r = float(np.clip((rest[1:] * rest[:-1]).sum() / max((rest**2).sum(), 1e-300), 0, 0.95))
    free = max(n * (1 - r) / (1 + r) - 2, 0.5)
    return slope, float(np.sqrt((rest**2).sum() / free / (t**2).sum()))


def index_of(world: World, forcing: Forcing, months: pd.DatetimeIndex) -> np.ndarray:
    """(N,) Nino3.4 anomaly in K of the forcing at mid-month, less its calendar month's mean."""
    weight = region_weights("nino34", world.grid) * world.grid.area_weights[:, None]
    at = world.forcing_channels.index(SEA)
    fields = [forcing(pd.DatetimeIndex([m + MIDDLE]))[0, at] for m in months]
    values = np.array([(f * weight).sum() / weight.sum() for f in fields])
    return values - pd.Series(values).groupby(months.month).transform("mean").to_numpy()


def slopes(record: Record, label: str, index: np.ndarray) -> np.ndarray:
    """(H, W) regression of monthly anomalies on an index (N,); NaN where it does not vary."""
    anomalies, power = record.anomalies(label).mean(1, dtype=np.float64), float(index @ index)
    return np.tensordot(index, anomalies, 1) / (power if power > 1e-12 else np.nan)


def compare(run: Record, other: Record, forcing: Forcing | None = None) -> dict[str, Any]:
    """Scores of a run against a reference, by field and overall.

    Args:
        run: of the simulation.
        other: the reference, on the same world.
        forcing: of both where they share it (see ``known_in``), for the Nino3.4 regression.

    Returns:
        Field to scores; ``all`` has the modes and trends.
    """
    scores = {label: _field(run, other, v) for v, label in enumerate(run.diagnostics.labels)}
    if forcing is not None:
        for label in run.diagnostics.labels:
            scores[label] |= _nino(run, other, label, forcing)
    everywhere: dict[str, Any] = {}
    for hemisphere in HEMISPHERES:
        everywhere |= _annular(run, other, hemisphere)
    for name in run.series[2]:
        slope, error = trend(run.yearly(name)[1])
        everywhere |= {f"trend_{name}": 10 * slope, f"trend_error_{name}": 10 * error}
    for name in scores[run.diagnostics.labels[0]]:
        known = [abs(s[name]) for s in scores.values() if np.isfinite(s.get(name, np.nan))]
        everywhere[name] = float(np.mean(known)) if known else float("nan")
    return {"all": everywhere, **scores}


def known_in(forcing: Forcing, *records: Record) -> bool:
    """Whether a forcing is known at the middle of every month of all records."""
    period = getattr(forcing, "period", None)
    ends = [(r.months[0] + MIDDLE, r.months[-1] + MIDDLE) for r in records]
    return period is None or all(period[0] <= a and b <= period[1] for a, b in ends)


def _field(run: Record, other: Record, v: int) -> dict[str, float]:
    world, mean = run.world, lambda f: float(area_mean(run.world, f))
    known = np.isfinite(run.mean[:, v, 0, 0]) & np.isfinite(other.mean[:, v, 0, 0])
    off = (run.cycle[:, v] - other.cycle[:, v])[known].mean(0)
    spread = np.sqrt(mean(other.variance[v]))
    found = {
        "bias": mean(off),
        "bias_rmse": np.sqrt(mean(off**2)),
        "bias_relative": np.sqrt(mean(off**2)) / spread,
        "variance_ratio": mean(run.variance[v]) / mean(other.variance[v]),
        "persistence_bias": mean(run.persistence[v] - other.persistence[v]),
        "monthly_variance_ratio": _monthly(run, v) / max(_monthly(other, v), 1e-30),
    }
    last = world.grid.shape[1] // 3
    ratio = run.power[v, 1 : last + 1] / other.power[v, 1 : last + 1]
    found |= {"spectrum_error": float(np.abs(ratio - 1).mean())}
    if known.all():
        wave = np.exp(-2j * np.pi * (np.arange(12) + 0.5) / 12)[:, None, None] / 6
        z, reference = ((r.cycle[:, v] * wave).sum(0) for r in (run, other))
        error = mean(np.abs(z - reference) ** 2) / mean(np.abs(reference) ** 2)
        found["annual_cycle_error"] = float(np.sqrt(error))
    mine, theirs = run.extremes(), other.extremes()
    if mine is not None and theirs is not None:
        for name, a, b in zip(("high", "low"), mine, theirs, strict=True):
            found[f"{name}_bias"] = mean(a[v] - b[v])
            found[f"{name}_relative"] = np.sqrt(mean((a[v] - b[v]) ** 2)) / spread
    return {name: float(value) for name, value in found.items()}


def _monthly(record: Record, v: int) -> float:
    """Area-mean variance of monthly means; NaN where none has another to differ from."""
    if record.repeats < 2:
        return float("nan")
    anomalies = record.anomalies(record.diagnostics.labels[v])
    return float(area_mean(record.world, np.square(anomalies, dtype=np.float64).mean((0, 1))))


def _nino(run: Record, other: Record, label: str, forcing: Forcing) -> dict[str, float]:
    world = run.world
    maps = [slopes(r, label, index_of(world, forcing, r.months)) for r in (run, other)]
    products = [float(area_mean(world, a * b)) for a, b in ((maps[0],) * 2, (maps[1],) * 2, maps)]
    root = np.sqrt(max(products[0] * products[1], 1e-300))
    amplitude = products[2] / max(products[1], 1e-300)
    return {"nino34_pattern": products[2] / root, "nino34_amplitude": amplitude}


def _annular(run: Record, other: Record, hemisphere: str) -> dict[str, float]:
    weight = zonal_region(run.world, hemisphere)[1]
    (p, own, share), (q, theirs, expected) = (r.mode(hemisphere) for r in (run, other))
    side = weight * q
    alike = (weight * p * q).sum() / np.sqrt((weight * p * p).sum() * (weight * q * q).sum())
    return {
        f"{hemisphere}_annular_share": share,
        f"{hemisphere}_annular_share_reference": expected,
        f"{hemisphere}_annular_pattern": float(alike),
        f"{hemisphere}_annular_variance_ratio": float((side @ own @ side) / (side @ theirs @ side)),
    }
