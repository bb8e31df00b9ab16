"""What is kept of a long run: monthly means, a row of global numbers a step, running statistics.

A folder grows month by month, and nothing in memory grows with the length of the run:

    monthly.zarr    monthly means of the fields that are looked at (``Diagnostics``), by member
    daily.zarr      some of those fields at every step of the first months, where asked for
    series.zarr     a row a step: global means, dry mass, moisture, energy, extremes
    record.npz      sums by calendar month, and the state that the run goes on from

``record.npz`` is replaced last, when all else of a month is there: it says where to go on, and a
run killed at any moment is taken up from the end of its last whole month, to the bit. With the
anomalies a of a field from the climatology's, by calendar month:

    count, sum of a, sum of a^2, sum of a(t) a(t + step), power of a by zonal wavenumber,
    sum of the climatology itself, which need not be another record's
    mean over years of the greatest and least value of a year
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import zarr
from torch import Tensor

from gapzoo.core import Channels, GapzooError
from gapzoo.core.world import World
from gapzoo.data.output import ForecastStore
from gapzoo.evaluators.conservation import Energy, Moisture
from gapzoo.evaluators.spectra import zonal_power
from gapzoo.tasks.conserve import DryPressure
from gapzoo.tasks.diagnostics import Diagnostics

EPOCH = pd.Timestamp("1900-01-01")
HOUR = pd.Timedelta(hours=1)


@dataclass
class Recorder:
    """Takes the steps of a run, in order.

    Args:
        folder: of the record.
        world: of the states.
        start: first time of the run, the first of a month; its own state is not counted.
        months: how many.
        members: of the ensemble.
        hours: between steps.
        daily: labels of the fields that are kept at every step, of ``daily_months`` months.
        daily_months: 0 keeps none.
        attributes: of the stores.
    """

    folder: Path
    world: World
    start: pd.Timestamp
    months: int
    members: int
    hours: int
    daily: Sequence[str] = ()
    daily_months: int = 0
    attributes: dict[str, str] | None = None

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.edges = pd.date_range(self.start, periods=self.months + 1, freq="MS", unit="us")
        if self.edges[0] != self.start:
            raise GapzooError(f"a run from {self.start}; it must begin with a month")
        self.diagnostics = Diagnostics(self.world)
        self.budgets = Budgets(self.world)
        self.monthly = ForecastStore(
            self.folder / "monthly.zarr",
            self.world,
            self.edges[:-1],
            members=self.members,
            channels=self.diagnostics.channels,
            attributes=self.attributes,
        )
        self.series = self._series()
        self.daily_store = self._daily()
        self.done, self.time = 0, self.start
        self._days: dict[int, np.ndarray] = {}
        self.state: np.ndarray | None = None
        self.sums = self._empty()
        self._load()
        self._fresh()

    @property
    def names(self) -> list[str]:
        """Columns of ``series.zarr``."""
        return [*self.diagnostics.labels, *self.budgets.names, "variance", "largest"]

    def add(self, time: pd.Timestamp, physical: Tensor, state: Tensor) -> None:
        """Take the states (M, C, H, W) of the next step, in SI units and normalised."""
        fields = self.diagnostics(physical).double().cpu().numpy()
        self._count(time, fields)
        self._rows.append(self._row(fields, physical, state))
        if self.daily_store is not None and self.done < self.daily_months:
            self.daily_store.write(time, None, fields[:, self._kept].astype(np.float32))
        self.time = time
        if time + self.hours * HOUR >= self.edges[self.done + 1]:
            self._close(physical)

    @property
    def complete(self) -> bool:
        """Whether every month is there."""
        return self.done >= self.months

    def _count(self, time: pd.Timestamp, fields: np.ndarray) -> None:
        """Add one step to the month and to the running statistics."""
        climate, n, sums = self._climate(time), time.month - 1, self.sums
        anomaly = fields - climate
        self._month += fields
        sums["count"][n] += len(fields)
        sums["sum"][n] += anomaly.sum(0)
        sums["climate"][n] += len(fields) * climate.astype(np.float64)
        sums["square"][n] += (anomaly**2).sum(0)
        if "previous" in sums:
            sums["lagged"] += (anomaly * sums["previous"]).sum(0)
            sums["lagged_square"] += (anomaly**2).sum(0)
        sums["previous"] = anomaly
        power = zonal_power(torch.from_numpy(anomaly)).numpy()
        rows = self.world.grid.area_weights / self.world.grid.area_weights.sum()
        sums["power"][n] += np.einsum("mvhk,h->vk", power, rows)
        sums["year_high"] = np.maximum(sums["year_high"], fields)
        sums["year_low"] = np.minimum(sums["year_low"], fields)

    def _climate(self, time: pd.Timestamp) -> np.ndarray:
        """(V, H, W) fields of the day's climatology, made once."""
        day = time.dayofyear
        if day not in self._days:
            noon = pd.DatetimeIndex([time.normalize() + pd.Timedelta(hours=12)])
            mean = self.diagnostics(self.world.mean(noon).double())[0]
            self._days[day] = mean.float().numpy()
        return self._days[day]

    def _row(self, fields: np.ndarray, physical: Tensor, state: Tensor) -> np.ndarray:
        """(M, names) of one step."""
        area = self.world.grid.area_weights[:, None] / np.prod(self.world.grid.shape)
        means = (fields * area).sum((-2, -1))
        weights = torch.as_tensor(area).to(state)
        variance = (state.square() * weights).sum((-2, -1)).mean(1)
        worst = state.abs().flatten(1).amax(1)
        ends = torch.stack([variance, worst], 1).double().cpu().numpy()
        return np.concatenate([means, self.budgets(physical), ends], 1)

    def _close(self, physical: Tensor) -> None:
        """Write a whole month."""
        count = len(self._rows)
        self.monthly.write(self.edges[self.done], None, (self._month / count).astype(np.float32))
        first = self._steps_before(self.done)
        series: Any = self.series["series"]
        series[first : first + count] = np.stack(self._rows)
        self.done += 1
        if self.edges[self.done].month == 1:
            self._close_year()
        self.state = physical.float().cpu().numpy()
        self._save()
        self._fresh()

    def _close_year(self) -> None:
        steps = self._steps_before(self.done) - self._steps_before(max(self.done - 12, 0))
        if steps * self.hours >= 300 * 24:
            self.sums["years"] += len(self.sums["year_high"])
            self.sums["highs"] += self.sums["year_high"].sum(0)
            self.sums["lows"] += self.sums["year_low"].sum(0)
        self.sums["year_high"].fill(-np.inf)
        self.sums["year_low"].fill(np.inf)

    def _steps_before(self, month: int) -> int:
        """Steps that the months before this one hold: times after the start, before its edge."""
        span = (self.edges[month] - self.start) / HOUR
        return max(0, -(-round(span) // self.hours) - 1)

    def _fresh(self) -> None:
        self._rows: list[np.ndarray] = []
        shape = (self.members, len(self.diagnostics.labels), *self.world.grid.shape)
        self._month = np.zeros(shape)

    def _empty(self) -> dict[str, np.ndarray]:
        v, (h, w) = len(self.diagnostics.labels), self.world.grid.shape
        zeros = {"count": (12,), "sum": (12, v, h, w), "square": (12, v, h, w), "years": ()}
        zeros |= {"lagged": (v, h, w), "lagged_square": (v, h, w), "power": (12, v, w // 2 + 1)}
        zeros |= {"highs": (v, h, w), "lows": (v, h, w), "climate": (12, v, h, w)}
        sums = {name: np.zeros(shape) for name, shape in zeros.items()}
        sums["year_high"] = np.full((self.members, v, h, w), -np.inf)
        sums["year_low"] = np.full((self.members, v, h, w), np.inf)
        return sums

    def _save(self) -> None:
        part = self.folder / "record.part.npz"
        assert self.state is not None
        when = int((self.time - EPOCH) / HOUR)
        np.savez(part, done=self.done, hours=when, state=self.state, **self.sums)  # type: ignore[arg-type]
        part.replace(self.folder / "record.npz")

    def _load(self) -> None:
        path = self.folder / "record.npz"
        if not path.exists():
            return
        with np.load(path, allow_pickle=False) as file:
            found = {name: file[name] for name in file.files}
        if "climate" not in found:
            raise GapzooError(f"{path} is of an older version; remove {self.folder} to begin again")
        self.done = int(found.pop("done"))
        self.time = EPOCH + int(found.pop("hours")) * HOUR
        self.state, self.sums = found.pop("state"), found

    def _series(self) -> zarr.Group:
        path = self.folder / "series.zarr"
        steps = self._steps_before(self.months)
        if not path.exists():
            part = self.folder / "series.part"
            root = zarr.open_group(part, mode="w")
            chunk = (max(1, min(steps, 8784 // self.hours)), self.members, len(self.names))
            shape = (steps, *chunk[1:])
            dims = ("time", "number", "name")
            root.create_array(
                "series", shape=shape, dtype="float64", chunks=chunk, dimension_names=dims,
                fill_value=float("nan"),
            )  # fmt: skip
            root.attrs.update(names=self.names, start=str(self.start), hours=self.hours)
            part.replace(path)
        return zarr.open_group(path, mode="r+")

    def _daily(self) -> ForecastStore | None:
        months = min(self.daily_months, self.months)
        if not (months and self.daily):
            return None
        self._kept = [self.diagnostics.labels.index(x) for x in self._known(self.daily)]
        steps = np.arange(1, self._steps_before(months) + 1) * self.hours
        return ForecastStore(
            self.folder / "daily.zarr",
            self.world,
            self.start + pd.to_timedelta(steps, unit="h"),
            members=self.members,
            channels=Channels(self.daily, self.diagnostics.channels.level_kind),
            attributes=self.attributes,
        )

    def _known(self, labels: Sequence[str]) -> Sequence[str]:
        for label in labels:
            if label not in self.diagnostics.labels:
                raise GapzooError(
                    f"no daily field '{label}'; one of {', '.join(self.diagnostics.labels)}"
                )
        return labels


class Budgets:
    """Global means of column budgets: dry pressure (Pa), moisture (kg m-2), energy (J m-2).

    A world without surface pressure has none, one without sigma levels or humidity the first.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self._made = self._possible()

    def _possible(self) -> dict[str, Any]:
        world, made = self.world, dict[str, Any]()
        area = torch.from_numpy(world.grid.area_weights[:, None] / np.prod(world.grid.shape))
        try:
            made["dry_pressure"] = DryPressure(world)
            for name, kind in (("moisture", Moisture), ("energy", Energy)):
                columns = kind(world.grid.area_weights, channels=world.channels).columns
                made[name] = lambda x, f=columns: (f(x) * area.to(x.device)).sum((-2, -1))
        except GapzooError:
            return made
        return made

    @cached_property
    def names(self) -> list[str]:
        """What is there."""
        return list(self._made)

    def __call__(self, physical: Tensor) -> np.ndarray:
        """(M, names) float64 of states (M, C, H, W) in SI units."""
        found = [made(physical).cpu().double().numpy() for made in self._made.values()]
        return np.stack(found, 1) if found else np.zeros((len(physical), 0))
