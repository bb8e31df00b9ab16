"""Soundings of one time for a world on sigma levels: checked, averaged, split, judged.

Soundings lie on pressure levels; they are compared through ``OnPressure``, with each state's own
surface pressure, and averaged before in layers about as thick as the model's. Some stations are
withheld, whole, and take part in nothing but the verdict.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from gapzoo.core import GapzooError
from gapzoo.core.pressure import GRAVITY
from gapzoo.core.random import derive_seed
from gapzoo.core.world import World
from gapzoo.data.observations import Observations, check, superob
from gapzoo.data.observations.operators import build_operator
from gapzoo.data.observations.profiles import Mixed, operators_for
from gapzoo.tasks.calibration import Calibration, calibrate

LAYER = 0.35
"""Thickness of the averaged layers, in ln p."""
WITHIN = 0.5
"""Correlation of instrument errors within a layer of a sounding."""
DRIEST = 300.0
"""Humidity sensors are not trusted above this pressure, hPa."""


@dataclass(frozen=True)
class Soundings:
    """Observations of one time, checked and averaged.

    Args:
        world: whose states they are compared with.
        time: of the analysis.
        observations: N, on pressure levels.
        withheld: (N,) which are not to be assimilated.
        rejected: the others, with a ``reason``.
    """

    world: World
    time: pd.Timestamp
    observations: Observations
    withheld: np.ndarray
    rejected: pd.DataFrame

    @classmethod
    def of(
        cls,
        observations: Observations,
        world: World,
        time: pd.Timestamp,
        *,
        share: float = 0.2,
        seed: int = 0,
        hours: float = 3.0,
    ) -> Soundings:
        """Check, average and split a table.

        Args:
            share: of the stations that is withheld.
            seed: of the choice of stations.
            hours: observations farther than this from ``time`` are left out.

        Raises:
            GapzooError: where fewer than two stations are left, or levels are of other kinds.
        """
        if world.channels.level_kind != "sigma" or observations.level_kind != "pressure":
            raise GapzooError("soundings on pressure levels go with a world on sigma levels")
        good, rejected = _checked(observations, world, time, hours)
        averaged = superob(good, 0.5, 2 * hours, LAYER, WITHIN, by_station=True)
        stations = np.unique(averaged.table["station"])
        if len(stations) < 2:
            raise GapzooError(f"{len(stations)} stations within {hours:g} h of {time}; give more")
        count = min(max(1, round(share * len(stations))), len(stations) - 1)
        rng = np.random.default_rng(derive_seed(seed, "withheld"))
        chosen = rng.permutation(stations)[:count]
        held = averaged.table["station"].isin(chosen).to_numpy()
        return cls(world, time, averaged, held, rejected)

    @cached_property
    def operator(self) -> Mixed:
        """Of all observations, on states in SI units."""
        return _operator(self.observations, self.world)

    @cached_property
    def climate(self) -> tuple[Tensor, Tensor]:
        """Mean and spread (C, H, W) of the day of the year, SI units."""
        none = Calibration.none(self.world)
        return none.mean(self.world, self.time), none.spread(self.world, self.time)

    @cached_property
    def channel(self) -> np.ndarray:
        """(N,) channel nearest to each observation."""
        return self.operator.channel.numpy()

    def departures(self, mean: Tensor, spread: Tensor) -> pd.DataFrame:
        """The table with ``channel``, ``departure`` from a mean and ``spread`` there."""
        seen = self.operator(mean).numpy()
        wide = self.operator.frozen(mean)(spread).abs().numpy()
        table = self.observations.table
        columns = {"channel": self.channel, "departure": table["value"] - seen, "spread": wide}
        return table.assign(**columns)

    def calibration(self) -> Calibration:
        """Fitted to what is assimilated."""
        return calibrate(self.world, self.departures(*self.climate)[~self.withheld])

    def thinned(self, rows: np.ndarray) -> Soundings:
        """Some of the observations."""
        some = self.observations[rows]
        return Soundings(self.world, self.time, some, self.withheld[rows], self.rejected)

    def errors(self, calibration: Calibration) -> np.ndarray:
        """(N,) SI units; averages of one sounding near one level share one error."""
        own = self.observations.table["error"].to_numpy()
        fitted = calibration.error[self.channel]
        keys = [self.observations.table["station"], pd.Series(self.channel, name="channel")]
        sharing = own.copy()
        sharing[:] = pd.Series(own).groupby(keys).transform("size").to_numpy()
        return np.where(np.isnan(fitted), own, fitted * np.sqrt(sharing))

    def outliers(self, calibration: Calibration, errors: np.ndarray, limit: float) -> np.ndarray:
        """(N,) which depart from a climate by more than ``limit`` standard deviations."""
        mean = calibration.mean(self.world, self.time)
        table = self.departures(mean, calibration.spread(self.world, self.time))
        return (table["departure"].abs() > limit * np.hypot(table["spread"], errors)).to_numpy()


def _checked(
    observations: Observations, world: World, time: pd.Timestamp, hours: float
) -> tuple[Observations, pd.DataFrame]:
    """The good ones, and the others with reasons."""
    table = observations.table
    lowest = min(c.level for c in world.channels if c.level is not None)
    pressure = _surface_pressure(observations, world, time)
    sigma = 100 * table["level"].to_numpy() / pressure
    away = (table["time"] - time).abs() > pd.Timedelta(hours=hours)
    dry = (table["variable"] == "specific_humidity") & (table["level"] < DRIEST)
    reasons = np.full(len(table), "", object)
    _, report = check(observations.on_sigma(pressure), world.grid, world.channels, beyond="nearest")
    reasons[report["row"].to_numpy(int)] = report["reason"].to_numpy()
    for mask, reason in (
        (sigma < lowest, "above the model's highest level"),
        (sigma > 1.0, "below the model's ground"),
        (dry.to_numpy(), f"humidity above {DRIEST:g} hPa"),
        (away.to_numpy(), f"farther than {hours:g} h"),
    ):
        reasons[mask & (reasons == "")] = reason
    bad = reasons != ""
    return observations[~bad], table[bad].assign(reason=reasons[bad])


def _surface_pressure(observations: Observations, world: World, time: pd.Timestamp) -> np.ndarray:
    """(N,) climatological, Pa."""
    table = observations.table
    operator = build_operator(
        world.grid,
        world.channels,
        table["latitude"].to_numpy(),
        table["longitude"].to_numpy(),
        np.full(len(table), "surface_pressure"),
        np.full(len(table), np.nan),
    )
    return operator(world.mean(pd.DatetimeIndex([time]))[0].float()).numpy()


def _operator(observations: Observations, world: World) -> Mixed:
    ground = np.zeros(world.grid.shape, np.float32)
    if "geopotential_at_surface" in world.static_channels:
        at = world.static_channels.index("geopotential_at_surface")
        ground = np.asarray(world.static[at], np.float32) / GRAVITY
    return operators_for(observations, world.grid, world.channels, torch.from_numpy(ground))


@dataclass(frozen=True)
class Verdict:
    """Withheld observations against one method.

    Args:
        table: a row a withheld observation: ``variable``, ``level`` (of the nearest channel),
            ``latitude``, ``departure`` (observed minus ensemble mean), ``spread``, ``error``.
        ranks: (M + 1,) of the observations among the members with errors; empty without members.
    """

    table: pd.DataFrame
    ranks: np.ndarray

    @classmethod
    def of(
        cls,
        soundings: Soundings,
        rows: np.ndarray,
        errors: np.ndarray,
        seen: Tensor,
        spread: Tensor | None = None,
        seed: int = 0,
    ) -> Verdict:
        """Judge at the rows (n,).

        Args:
            errors: (N,) of the observations.
            seen: (M, N) members, or (1, N) a mean whose ``spread`` (N,) is given.
        """
        table, count = soundings.observations.table.iloc[rows], len(seen)
        values = seen[:, rows].double().numpy()
        left = table["value"].to_numpy() - values.mean(0)
        wide = values.std(0, ddof=1) if spread is None else spread[rows].numpy()
        level = [soundings.world.channels[c].level for c in soundings.channel[rows]]
        columns = {"departure": left, "spread": wide, "error": errors[rows], "nearest": level}
        names = ["variable", "station", "latitude", "longitude", "level", "value"]
        found = table[names].assign(**columns)
        if spread is not None:
            return cls(found, np.zeros(0, int))
        rng = np.random.default_rng(derive_seed(seed, "ranks"))
        noisy = values + rng.standard_normal(values.shape) * errors[rows]
        rank = (noisy < table["value"].to_numpy()).sum(0)
        return cls(found, np.bincount(rank, minlength=count + 1))

    def summary(self) -> pd.DataFrame:
        """By variable and nearest level: count, bias, rms, spread, what rms to expect."""
        t = self.table.fillna({"nearest": 1.0})
        parts = {
            "count": pd.Series(1.0, t.index),
            "bias": t["departure"],
            "square": t["departure"] ** 2,
            "variance": t["spread"] ** 2,
            "error": t["error"] ** 2,
        }
        keys = [t["variable"], t["nearest"].rename("level")]
        mean = pd.DataFrame(parts).groupby(keys).mean()
        count = t.groupby(keys).size()
        expected = np.sqrt(mean["variance"] + mean["error"])
        columns = {"rms": np.sqrt(mean["square"]), "spread": np.sqrt(mean["variance"])}
        return mean[["bias"]].assign(count=count, **columns, expected=expected)
