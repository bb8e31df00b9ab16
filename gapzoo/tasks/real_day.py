"""A real day: soundings through checks and operators into an analysis, judged by withheld ones.

Each method takes the soundings in one of two climates:

- as it is: the simulator's climate and the instruments' errors;
- calibrated: bias, amplitude and errors estimated from the assimilated soundings (``calibration``).

Both are drawn under the same random numbers and judged by the same withheld observations: those
that do not depart from the calibrated climate by more than ``LIMIT`` standard deviations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from gapzoo.baselines.gain import Gain
from gapzoo.baselines.localisation import Sphere
from gapzoo.core import MemberGenerator
from gapzoo.core.world import World
from gapzoo.diffusion.guidance import GaussianConstraint
from gapzoo.diffusion.prior import Prior
from gapzoo.tasks.calibration import Calibration
from gapzoo.tasks.sampling import Sampling
from gapzoo.tasks.soundings import Soundings, Verdict

LIMIT = 5.0
"""Of the background check, in standard deviations."""


@dataclass(frozen=True)
class Climate:
    """A world's climate as a method takes it.

    Args:
        world: of the normalised states.
        time: of the day.
        calibration: from the simulator's to the observed climate; ``Calibration.none``.
    """

    world: World
    time: pd.Timestamp
    calibration: Calibration

    @property
    def mean(self) -> Tensor:
        """(C, H, W) SI units."""
        return self.calibration.mean(self.world, self.time)

    def observed(self, operator: Any, y: Tensor, errors: Tensor) -> GaussianConstraint:
        """Observations as a constraint on normalised states, in units of their errors."""
        seen = Whitened(operator, self.mean, self.calibration.scale(self.world), errors)
        return GaussianConstraint(seen, (y / errors)[None], 1.0)

    def physical(self, z: Tensor) -> Tensor:
        """Normalised states in SI units."""
        return self.calibration.physical(z, self.world, self.time)


@dataclass(frozen=True)
class Whitened:
    """z -> H(mean + scale z) / errors."""

    operator: Any
    mean: Tensor
    scale: Tensor
    errors: Tensor

    def __call__(self, z: Tensor) -> Tensor:
        """(..., C, H, W) -> (..., N)."""
        return self.operator(self.mean + self.scale * z) / self.errors


def draw_prior(
    prior: Prior,
    sampling: Sampling,
    climate: Climate,
    observed: GaussianConstraint | None,
    generator: MemberGenerator,
    forcing: np.ndarray | None = None,
) -> Tensor:
    """Analyses (M, C, H, W) in SI units: the prior under observations.

    Args:
        forcing: (F, H, W) anomalies, SI units; None is the climatology.
    """
    anomaly = None if forcing is None else forcing[None]
    cond = climate.world.condition(pd.DatetimeIndex([climate.time]), anomaly)
    seen = [observed] if observed is not None else []
    z = sampling.draw(
        prior, climate.world.shape, generator, observations=lambda _: seen, forcing=cond
    )
    return climate.physical(z)


def interpolate(
    sample: Tensor,
    held: Tensor,
    climate: Climate,
    operator: Any,
    y: Tensor,
    errors: Tensor,
    generator: MemberGenerator,
    length: float = 4e6,
) -> Tensor:
    """Analyses (M, C, H, W) in SI units by optimal interpolation.

    Args:
        sample: (S, C, H, W) normalised states that the covariance is taken from.
        held: (K, C, H, W) other ones, from which members start.
        operator: with ``frozen``, or linear; on states in SI units.
        length: of localisation, metres.
    """
    world, calibration = climate.world, climate.calibration
    mean, scale = calibration.mean(world, climate.time), calibration.scale(world)
    linear = operator.frozen(mean) if hasattr(operator, "frozen") else operator
    seen, offset = linear.scaled(mean, scale)
    gain = Gain(sample, seen, errors, Sphere(world.grid, world.channels, length=length))
    start = held[torch.arange(len(generator)) % len(held)]
    noise = generator.randn((len(generator), len(y))) * errors
    return climate.physical(start + gain.increment(y - offset + noise - seen(start)))


def seasonal(times: pd.DatetimeIndex, rows: np.ndarray, time: pd.Timestamp) -> Iterator[int]:
    """Those of some rows of an archive that lie within 30 days of a day of the year."""
    days = times[rows].dayofyear.to_numpy()
    apart = np.abs((days - time.dayofyear + 182) % 365 - 182)
    yield from rows[apart <= 30]


@dataclass(frozen=True)
class Sample:
    """Normalised states of an archive: ``states`` (S, C, H, W) that a covariance is taken from,
    ``held`` (K, C, H, W) others that members start from."""

    states: Tensor
    held: Tensor


@dataclass
class RealDay:
    """Does it all for one set of soundings.

    Args:
        soundings: checked, averaged, split.
        prior: of the soundings' world.
        sampling: how to draw.
        sample: for optimal interpolation; without it that is left out.
        forcing: (F, H, W) anomalies in SI units; None is the climatology.
        members: of each ensemble.
        seed: of everything.
        progress: called with the name of each method as it is done.
    """

    soundings: Soundings
    prior: Prior
    sampling: Sampling
    sample: Sample | None = None
    forcing: np.ndarray | None = None
    members: int = 16
    seed: int = 0
    progress: Callable[[str], None] = lambda _: None
    verdicts: dict[str, Verdict] = field(default_factory=dict)
    analyses: dict[str, Tensor] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def run(self) -> RealDay:
        """Calibrate, analyse, judge."""
        self.calibration = self.soundings.calibration()
        self.progress("calibration")
        self._errors = self.soundings.errors(self.calibration)
        far = self.soundings.outliers(self.calibration, self._errors, LIMIT)
        self._judged = np.flatnonzero(self.soundings.withheld & ~far)
        self.counts |= {"withheld": len(self._judged)}
        for name, calibration in self.climates().items():
            self._climate(name, calibration)
        return self

    def climates(self) -> dict[str, Calibration]:
        """The two climates by name."""
        none = Calibration.none(self.soundings.world)
        return {"as it is": none, "calibrated": self.calibration}

    def _climate(self, name: str, calibration: Calibration) -> None:
        """All methods in one climate."""
        own = self.soundings
        climate = Climate(own.world, own.time, calibration)
        errors = own.errors(calibration)
        far = own.outliers(calibration, errors, LIMIT)
        rows = np.flatnonzero(~own.withheld & ~far)
        self.counts[f"rejected, {name}"] = int((far & ~own.withheld).sum())
        self.counts[f"assimilated, {name}"] = len(rows)
        used = own.thinned(rows)
        y, r = (
            torch.from_numpy(np.asarray(v, np.float32))
            for v in (used.observations.table["value"], errors[rows])
        )
        mean, spread = (
            calibration.mean(own.world, own.time),
            calibration.spread(own.world, own.time),
        )
        wide = own.operator.frozen(mean)(spread).abs()
        self._judge(f"climatology, {name}", own.operator(mean)[None], wide)
        self._analyse(name, climate, used, y, r)

    def _analyse(self, name: str, climate: Climate, used: Soundings, y: Tensor, r: Tensor) -> None:
        streams = MemberGenerator(self.seed, self.members)
        if self.sample is not None:
            found = interpolate(
                self.sample.states,
                self.sample.held,
                climate,
                used.operator,
                y,
                r,
                streams.fork("oi"),
            )
            self._keep(f"optimal interpolation, {name}", found)
        seen = climate.observed(used.operator, y, r)
        drawn = draw_prior(
            self.prior, self.sampling, climate, seen, streams.fork("prior"), self.forcing
        )
        self._keep(f"GAP, {name}", drawn)

    def _keep(self, name: str, members: Tensor) -> None:
        self.analyses[name] = members
        self._judge(name, self.soundings.operator(members))

    def _judge(self, name: str, seen: Tensor, spread: Tensor | None = None) -> None:
        own = self.soundings
        self.verdicts[name] = Verdict.of(own, self._judged, self._errors, seen, spread, self.seed)
        self.progress(name)

    def table(self) -> pd.DataFrame:
        """By method and variable: rms over that of climatology as it is, mean over levels."""
        reference = self.verdicts["climatology, as it is"].summary()["rms"]
        columns = {}
        for name, verdict in self.verdicts.items():
            share = verdict.summary()["rms"] / reference
            columns[name] = share.groupby("variable").mean()
        return pd.DataFrame(columns).T
