"""A real state: observed at some of its columns, reconstructed, scored against itself.

The state comes on pressure levels and is taken to the world's sigma levels at the world's own
ground: surface pressure is where the state's geopotential is that of the ground, found by

    ln p linear in geopotential;  below the lowest level, ln ps = ln p_0 + (phi_0 - phi_s) / (R T_0)

and profiles are linear in ln p, constant beyond the ends; temperature follows the standard lapse
rate there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import xarray as xr
from torch import Tensor

from gapzoo.core import GapzooError, Grid, MemberGenerator
from gapzoo.core.pressure import EXPONENT, GAS_CONSTANT, to_pressure
from gapzoo.core.random import derive_seed
from gapzoo.core.world import World
from gapzoo.data.observations import simulate, standard_errors, station_columns
from gapzoo.data.observations.columns import ColumnStations
from gapzoo.diffusion.prior import Prior
from gapzoo.tasks.calibration import Calibration, calibrate
from gapzoo.tasks.real_day import Climate, Sample, draw_prior, interpolate
from gapzoo.tasks.sampling import Sampling

DIMENSIONS = ("level", "latitude", "longitude")


def read_state(path: Path, world: World) -> tuple[Tensor, pd.Timestamp]:
    """A state of a NetCDF file on pressure levels (hPa), WeatherBench 2 names, on a world's grid.

    Returns:
        (C, H, W) in SI units on the world's sigma levels, and its time.

    Raises:
        GapzooError: where the file cannot be read, lacks a variable, or is on another grid.
    """
    try:
        with xr.open_dataset(path) as file:
            data = file.load()
    except (OSError, ValueError) as error:
        raise GapzooError(f"cannot read a state from '{path}': {error}") from error
    names = list(dict.fromkeys(c.variable for c in world.channels if c.level is not None))
    for name in (*names, "geopotential", *DIMENSIONS, "time"):
        if name not in data.variables:
            raise GapzooError(f"{path} has no '{name}'; give a state with {', '.join(names)}")
    grid = Grid(tuple(data["latitude"].values), tuple(data["longitude"].values))
    if not grid.matches(world.grid):
        raise GapzooError(f"{path} is on another grid than {world.name}; regrid it first")
    times = np.atleast_1d(data["time"].values)
    data = data.isel(time=0) if "time" in data.dims else data
    fields = {n: _field(data, n) for n in (*names, "geopotential")}
    return on_sigma(fields, data["level"].values, world), pd.Timestamp(times[0])


def _field(data: xr.Dataset, name: str) -> np.ndarray:
    return data[name].transpose(*DIMENSIONS).values.astype(np.float64)


def on_sigma(fields: dict[str, np.ndarray], pressure: np.ndarray, world: World) -> Tensor:
    """Profiles (L, H, W) by variable, with ``geopotential``, to a world's channels (C, H, W).

    Args:
        fields: SI units.
        pressure: (L,) hPa.
    """
    order = np.argsort(pressure)
    log_p = np.log(100.0 * np.asarray(pressure, float)[order])
    height = {name: value[order] for name, value in fields.items()}
    at = world.static_channels.index("geopotential_at_surface")
    ground = np.asarray(world.static[at], float)
    log_ps = _surface(height["geopotential"], height["temperature"][-1], log_p, ground)
    made = []
    for channel in world.channels:
        if channel.variable == "surface_pressure":
            made.append(np.exp(log_ps))
            continue
        if channel.level is None:
            raise GapzooError(f"cannot make '{channel.label}' from a state on pressure levels")
        wanted = log_ps + np.log(channel.level)
        value = _at(height[channel.variable], log_p, wanted)
        if channel.variable == "temperature":
            value = value * np.exp(EXPONENT * np.maximum(wanted - log_p[-1], 0.0))
        made.append(value)
    return torch.from_numpy(np.stack(made).astype(np.float32))


def _at(field: np.ndarray, known: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """(L, H, W) on ascending ``known`` (L,) at ``wanted`` (H, W); constant beyond the ends."""
    inside = np.clip(wanted, known[0], known[-1])
    lower = np.clip(np.searchsorted(known, inside), 1, len(known) - 1)
    share = (inside - known[lower - 1]) / (known[lower] - known[lower - 1])
    up, down = (np.take_along_axis(field, i[None], 0)[0] for i in (lower - 1, lower))
    return up + share * (down - up)


def _surface(
    geopotential: np.ndarray, lowest: np.ndarray, log_p: np.ndarray, ground: np.ndarray
) -> np.ndarray:
    """(H, W) ln of the pressure at the ground."""
    below = log_p[-1] + (geopotential[-1] - ground) / (GAS_CONSTANT * lowest)
    found = below.copy()
    for row, column in zip(*np.nonzero(ground > geopotential[-1]), strict=True):
        profile = geopotential[::-1, row, column]
        found[row, column] = np.interp(ground[row, column], profile, log_p[::-1])
    return found


@dataclass
class RealState:
    """Does it all for one state.

    Args:
        truth: (C, H, W) in SI units.
        time: of it.
        world: of the prior.
        prior: the diffusion prior.
        sampling: how to draw.
        sample: for optimal interpolation; without it that is left out.
        fractions: of the columns that are observed.
        members: of each ensemble.
        seed: of everything.
        progress: called with the name of each method as it is done.
    """

    truth: Tensor
    time: pd.Timestamp
    world: World
    prior: Prior
    sampling: Sampling
    sample: Sample | None = None
    fractions: tuple[float, ...] = (0.01, 0.05, 0.1)
    members: int = 16
    seed: int = 0
    progress: Callable[[str], None] = lambda _: None
    scores: list[dict[str, Any]] = field(default_factory=list)
    analyses: dict[tuple[float, str], Tensor] = field(default_factory=dict)
    stations: dict[float, ColumnStations] = field(default_factory=dict)
    calibrations: dict[float, Calibration] = field(default_factory=dict)

    def run(self) -> RealState:
        """Observe, calibrate, reconstruct, score."""
        for fraction in self.fractions:
            self._fraction(fraction)
        return self

    def _fraction(self, fraction: float) -> None:
        grid, channels = self.world.grid, self.world.channels
        stations = station_columns(grid, channels, fraction, derive_seed(self.seed, "net"))
        errors = standard_errors(stations, channels)
        y = simulate(self.truth, stations, errors, derive_seed(self.seed, "noise", fraction))
        self.stations[fraction] = stations
        self.calibrations[fraction] = self._calibrate(stations, y, errors)
        none = Calibration.none(self.world)
        for name, one in {"as it is": none, "calibrated": self.calibrations[fraction]}.items():
            self._climate(fraction, name, one, stations, y, errors)

    def _calibrate(self, stations: ColumnStations, y: Tensor, errors: Tensor) -> Calibration:
        none = Calibration.none(self.world)
        mean, spread = none.mean(self.world, self.time), none.spread(self.world, self.time)
        table = pd.DataFrame(
            {
                "channel": stations.channel,
                "latitude": stations.latitude.double(),
                "longitude": stations.longitude.double(),
                "departure": (y - stations(mean)).double(),
                "spread": stations(spread).double(),
                "error": errors.double(),
            }
        )
        known = table.groupby("channel")["error"].first().to_dict()
        return calibrate(self.world, table, known)

    def _climate(
        self,
        fraction: float,
        name: str,
        calibration: Calibration,
        stations: ColumnStations,
        y: Tensor,
        errors: Tensor,
    ) -> None:
        """All methods in one climate."""
        climate = Climate(self.world, self.time, calibration)
        streams = MemberGenerator(self.seed, self.members).fork(fraction)
        self._keep(fraction, f"climatology, {name}", climate.mean[None])
        if self.sample is not None:
            parts = (self.sample.states, self.sample.held, climate, stations, y, errors)
            found = interpolate(*parts, streams.fork("oi"))
            self._keep(fraction, f"optimal interpolation, {name}", found)
        seen = climate.observed(stations, y, errors)
        drawn = draw_prior(self.prior, self.sampling, climate, seen, streams.fork("prior"))
        self._keep(fraction, f"GAP, {name}", drawn)

    def _keep(self, fraction: float, name: str, members: Tensor) -> None:
        self.analyses[fraction, name] = members
        self.scores.append({"fraction": fraction, "method": name, **self._score(members)})
        self.progress(f"{fraction:.0%}: {name}")

    def _score(self, members: Tensor) -> dict[str, Any]:
        """(C,) area means: bias and squared error of the mean, variance that its error should have.

        That is (M + 1) / M times the members' own; NaN of a single one.
        """
        off = members.mean(0) - self.truth
        parts = {"bias": off, "square": off**2, "variance": _expected(members)}
        return {name: self._mean(value).numpy() for name, value in parts.items()}

    def _mean(self, fields: Tensor) -> Tensor:
        """(..., H, W) -> (...) over area."""
        weights = torch.from_numpy(self.world.grid.area_weights).float()[:, None]
        return (fields * weights).sum((-2, -1)) / (weights.sum() * fields.shape[-1])

    def fields(self, labels: Sequence[str]) -> pd.DataFrame:
        """Rms error of the mean, and what the members say it should be, on pressure levels.

        Args:
            labels: such as geopotential@500, of what ``to_pressure`` makes of the world's states.

        Returns:
            Columns fraction, method, field, error and spread, SI units; spread NaN of one member.
        """
        truth, rows = to_pressure(self.truth, self.world, list(labels)), []
        for (fraction, method), members in self.analyses.items():
            found = to_pressure(members, self.world, list(labels))
            error = self._mean((found.mean(0) - truth) ** 2).sqrt()
            spread = self._mean(_expected(found)).sqrt()
            for label, one, wide in zip(labels, error.tolist(), spread.tolist(), strict=True):
                rows.append((fraction, method, label, one, wide))
        return pd.DataFrame(rows, columns=["fraction", "method", "field", "error", "spread"])

    def table(self) -> pd.DataFrame:
        """By fraction, method and variable: rms error over that of climatology as it is, mean over
        levels; in the column ``spread/error`` the ratio over all of them, 1 where the members know
        their error and NaN without members."""
        reference = np.sqrt(self.scores[0]["square"])
        names = np.array([c.variable for c in self.world.channels])
        rows = []
        for one in self.scores:
            share = np.sqrt(one["square"]) / reference
            row = {"fraction": one["fraction"], "method": one["method"]}
            row |= {n: float(share[names == n].mean()) for n in dict.fromkeys(names.tolist())}
            ratio = (one["variance"] / reference**2).mean() / (one["square"] / reference**2).mean()
            rows.append({**row, "spread/error": float(np.sqrt(ratio))})
        return pd.DataFrame(rows).set_index(["fraction", "method"])


def _expected(members: Tensor) -> Tensor:
    """(M, ...) -> (...) squared error that their mean should have; NaN of one."""
    if len(members) == 1:
        return torch.full_like(members[0], torch.nan)
    return members.var(0) * (1 + 1 / len(members))
