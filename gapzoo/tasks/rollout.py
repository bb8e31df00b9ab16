"""One roll-out for every time scale: forecast, constrain, sample, yield.

Each member is carried one step by the deterministic forecaster; the prior under that forecast, and
under whatever else is observed or conserved,

    x_{n+1} ~ p(x | forcing) N(f(x_n); x, P) prod_i N(y_i; A_i(x), R_i),

returns it to the states that the atmosphere takes, with the uncertainty P of one step. Without a
prior the roll-out is the forecaster's alone.

Members of several initial times share a batch; the random numbers of a member depend on its own
seed and the valid time alone. What a step yields is rounded to SI units in float32 before it goes
on, so that a run taken up again from what was written goes on bit for bit (same batch).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from gapzoo.core import GapzooError, MemberGenerator
from gapzoo.core.random import MixedGenerator, joined
from gapzoo.core.world import World
from gapzoo.diffusion.covariance import CovarianceOperator
from gapzoo.diffusion.guidance import GaussianConstraint
from gapzoo.diffusion.prior import GaussianForecast, ModalForecast, Prior, RenoisedForecast
from gapzoo.forecasters.base import Forecaster
from gapzoo.tasks.forced import ForcedMeans, Forcing, anomaly_at, condition_at
from gapzoo.tasks.forecast_error import modal_likelihood
from gapzoo.tasks.recurrence import recurring
from gapzoo.tasks.sampling import NotFinite, Sampling

Observe = Callable[[pd.DatetimeIndex], GaussianConstraint]
"""Valid times (B,) of a batch's members to a constraint on their normalised states."""

Bounds = Callable[[Tensor], Tensor]
"""States (..., C, H, W) in SI units to the nearest that are possible."""


class Unphysical(GapzooError):
    """A roll-out ended at a state that is not finite, or left the climate.

    Args:
        message: what was wrong and what helps.
        time: valid time of the state.
    """

    def __init__(self, message: str, time: pd.Timestamp) -> None:
        super().__init__(message)
        self.time = time


@dataclass(frozen=True)
class Start:
    """One initial time.

    Args:
        state: (M, C, H, W) normalised.
        time: valid time.
        generator: a stream a member.
        forcing: None is the climatology.
        first: when the run began, where this goes on with one.
    """

    state: Tensor
    time: pd.Timestamp
    generator: MemberGenerator
    forcing: Forcing | None = None
    first: pd.Timestamp | None = None


@dataclass(frozen=True)
class Frame:
    """One step of one initial time.

    Args:
        start: initial time.
        time: valid time.
        state: (M, C, H, W) normalised: exactly what normalising ``physical`` gives.
        physical: (M, C, H, W) float32 in SI units.
    """

    start: pd.Timestamp
    time: pd.Timestamp
    state: Tensor
    physical: Tensor

    @property
    def lead(self) -> int:
        """Hours since the initial time."""
        return round((self.time - self.start) / pd.Timedelta(hours=1))


@dataclass(frozen=True)
class Guard:
    """Takes members that leave the climate back to it through the prior, by partial re-noising.

    Args:
        limit: a normalised value beyond this sets it off.
        start_sigma: noise level of the first try; each further one doubles it.
        tries: how many before the roll-out ends.
    """

    limit: float = 20.0
    start_sigma: float = 1.0
    tries: int = 5


@dataclass(frozen=True, kw_only=True)
class Rollout:
    """Carries an ensemble forward.

    Args:
        forecaster: one step of every member.
        world: of the states.
        hours: length of a step.
        prior: None leaves the forecaster's output as it is.
        sampling: how to draw from the constrained prior.
        error: covariance of the forecaster's errors over ``hours``; with it the constraint is
            Gaussian, without it partial re-noising at ``start_sigma``.
        start_sigma: noise level of partial re-noising.
        observe: further constraints, such as ``gapzoo.tasks.conserve.conserved``.
        limit: a normalised value beyond this is unphysical and ends the roll-out, but of a physical
            model alone, whose rain reaches 54 spreads in a desert.
        guard: None ends it there too; otherwise members come back before that.
        bounds: what is physically possible, such as ``gapzoo.tasks.bounds.HumidityBounds``.
    """

    forecaster: Forecaster
    world: World
    hours: int = 24
    prior: Prior | None = None
    sampling: Sampling | None = None
    error: CovarianceOperator | None = None
    start_sigma: float = 0.3
    observe: Observe | None = None
    limit: float = 50.0
    guard: Guard | None = None
    bounds: Bounds | None = None

    def __post_init__(self) -> None:
        for name in ("observe", "guard"):
            if getattr(self, name) is not None and self.prior is None:
                raise GapzooError(f"'{name}' acts through the prior, and there is none; give one")

    def run(
        self,
        state: Tensor,
        time: pd.Timestamp,
        generator: MemberGenerator,
        forcing: Forcing | None = None,
        first: pd.Timestamp | None = None,
    ) -> Iterator[tuple[pd.Timestamp, Tensor]]:
        """Yield (valid time, (M, C, H, W) normalised), without end; the first is one step ahead.

        Random numbers depend on the valid time alone, so a roll-out restarted from any state that
        it yielded goes on as it would have; where errors recur it is told when the run began, as
        ``first``.

        Raises:
            Unphysical: at the first state that is not finite or unphysical.
        """
        for (frame,) in self.frames([Start(state, time, generator, forcing, first)]):
            yield frame.time, frame.state

    def frames(self, starts: Sequence[Start]) -> Iterator[list[Frame]]:
        """The same for several initial times in one batch: a frame of each, step after step."""
        step = pd.Timedelta(hours=self.hours)
        batch = _Batch(list(starts), [s.time for s in starts], [s.state for s in starts])
        while True:
            batch = self._forward(batch, step)
            frames = [self._settled(*each) for each in batch.rows()]
            batch = _Batch(batch.starts, batch.times, [f.state for f in frames])
            yield frames

    def _forward(self, batch: _Batch, step: pd.Timedelta) -> _Batch:
        """Forecast, constrain, guard, check."""
        later = [t + step for t in batch.times]
        streams = [
            self._own(start.generator, time)
            for start, time in zip(batch.starts, later, strict=True)
        ]
        now = [anomaly_at(start.forcing, time) for start, time, _ in batch.rows()]
        states = self.forecaster.steps(batch.states, batch.times, self.hours, now, streams)
        ahead = _Batch(batch.starts, later, states)
        if self.prior is not None:
            self._check(ahead, np.inf)
            ahead = self._returned(ahead)
        own = self.prior is None and self.forecaster.physical
        self._check(ahead, np.inf if own else self.limit)
        return ahead

    def _own(self, generator: MemberGenerator, time: pd.Timestamp) -> MemberGenerator:
        """The forecaster's stream of a step; where errors recur its draws do too."""
        now = generator.fork("forecast", time)
        mixed = recurring(self.error) if self.prior is not None else None
        if mixed is None or not self.forecaster.stochastic:
            return now
        before = generator.fork("forecast", time - pd.Timedelta(hours=self.hours))
        return MixedGenerator(now, before, mixed.mix_whole)

    def _returned(self, batch: _Batch) -> _Batch:
        """Forecasts taken back to the states of the prior."""
        try:
            batch = batch.split(self._constrain(batch))
            return self._guarded(batch) if self.guard else batch
        except NotFinite as error:
            time = batch.times[0]
            raise Unphysical(f"at {time:%Y-%m-%d %H:%M} {error}", time) from None

    def _constrain(self, batch: _Batch) -> Tensor:
        forecast, given = torch.cat(batch.states), self._conditions(batch)
        centre = self._centre(batch, forecast)
        again = batch.again(pd.Timedelta(hours=self.hours)).to(forecast)
        given["forecast"] = lambda rows: self._given(
            forecast[rows],
            centre if centre is None or len(centre) == 1 else centre[rows],
            again[rows],
        )
        if self.observe is not None:
            observe, times = self.observe, batch.row_times
            given["observations"] = lambda rows: observe(times[rows])
        return self._draw(given, self._streams(batch))

    def _streams(self, batch: _Batch) -> MemberGenerator:
        """Of a step; where errors recur, mixed with those of the step before."""
        now, mixed = batch.streams("rollout"), recurring(self.error)
        if mixed is None:
            return now
        step = pd.Timedelta(hours=self.hours)
        before = joined([s.generator.fork("rollout", t - step) for s, t, _ in batch.rows()])
        return MixedGenerator(now, before, mixed.mix)

    def _conditions(self, batch: _Batch) -> dict[str, Any]:
        """The forcing of each row at its valid time; one row where all share it."""
        each = [condition_at(self.world, start.forcing, time) for start, time, _ in batch.rows()]
        if len(each) == 1:
            return {"forcing": each[0]}
        sizes = [len(s) for s in batch.states]
        rows = torch.cat([c.expand(n, -1, -1, -1) for c, n in zip(each, sizes, strict=True)])
        return {"forcing": lambda part: rows[part]}

    def _draw(self, given: dict[str, Any], generator: MemberGenerator) -> Tensor:
        assert self.prior is not None
        return (self.sampling or Sampling()).draw(self.prior, self.world.shape, generator, **given)

    def _centre(self, batch: _Batch, like: Tensor) -> Tensor | None:
        """The prior's mean under the forcing, one for all or one each, where errors take it up."""
        if self.prior is None or getattr(self.error, "forced", None) is None:
            return None
        means = [self._means(start.forcing, time).to(like) for start, time, _ in batch.rows()]
        if len(means) == 1:
            return means[0]
        pairs = zip(means, batch.states, strict=True)
        return torch.cat([mean.expand(len(state), -1, -1, -1) for mean, state in pairs])

    @cached_property
    def _means(self) -> ForcedMeans:
        assert self.prior is not None
        return ForcedMeans(self.prior, self.world)

    def _given(
        self, forecast: Tensor, centre: Tensor | None, again: Tensor
    ) -> GaussianForecast | ModalForecast | RenoisedForecast:
        if self.error is None:
            return RenoisedForecast(forecast, self.start_sigma)
        own = getattr(self.prior.denoiser if self.prior else None, "climatology", None)
        return modal_likelihood(forecast, self.error, own, centre, again)

    def _guarded(self, batch: _Batch) -> _Batch:
        """Members beyond the guard's limit, drawn again from their own re-noised states."""
        assert self.guard is not None
        states, conditions = torch.cat(batch.states), self._conditions(batch)
        cond = conditions["forcing"]
        for attempt in range(self.guard.tries):
            out = (_worst(states) > self.guard.limit).any(1).nonzero().flatten()
            if not len(out) or not torch.isfinite(states[out]).all():
                break
            singles = batch.streams("guard", attempt).split(1)
            level = self.guard.start_sigma * 2**attempt
            for row in out.tolist():
                given = {"forecast": RenoisedForecast(states[row : row + 1], level)}
                given["forcing"] = cond(slice(row, row + 1)) if callable(cond) else cond
                states[row] = self._draw(given, singles[row])[0]
        return batch.split(states)

    def _settled(self, start: Start, time: pd.Timestamp, state: Tensor) -> Frame:
        return settled(self.world, start.time, time, state, self.bounds)

    def _check(self, batch: _Batch, limit: float) -> None:
        for start, time, state in batch.rows():
            worst = _worst(state)
            if not bool((worst > limit).any() or torch.isinf(worst).any()):
                continue
            row, channel = divmod(int(worst.argmax()), state.shape[1])
            member, size = start.generator.members[row], float(worst.max())
            far = f"{size:.0f} spreads off" if np.isfinite(size) else "not finite"
            raise Unphysical(
                f"at {time:%Y-%m-%d %H:%M} member {member} left the climate: "
                f"{self.world.channels[channel].label} is {far}; "
                "constrain the roll-out with a prior, give it a guard, or shorten its step",
                time,
            )


@dataclass(frozen=True)
class _Batch:
    """States of several initial times, side by side."""

    starts: list[Start]
    times: list[pd.Timestamp]
    states: list[Tensor]

    def rows(self) -> Iterator[tuple[Start, pd.Timestamp, Tensor]]:
        return zip(self.starts, self.times, self.states, strict=True)

    def split(self, states: Tensor) -> _Batch:
        """The same with other states (B, C, H, W)."""
        return _Batch(self.starts, self.times, list(states.split([len(s) for s in self.states])))

    @property
    def row_times(self) -> pd.DatetimeIndex:
        """(B,) valid time of each member."""
        pairs = zip(self.times, self.states, strict=True)
        return pd.DatetimeIndex([t for t, s in pairs for _ in range(len(s))])

    def again(self, step: pd.Timedelta) -> Tensor:
        """(B,) 1 for members whose run had a step before the one to these times, else 0."""
        known = [t - step > (s.first or s.time) for s, t, _ in self.rows()]
        sizes = torch.tensor([len(state) for state in self.states])
        return torch.tensor(known).repeat_interleave(sizes)

    def streams(self, *keys: object) -> MemberGenerator:
        """A stream each member, by its initial time's generator, the valid time and the keys."""
        return joined([s.generator.fork(keys[0], t, *keys[1:]) for s, t, _ in self.rows()])


def settled(
    world: World,
    start: pd.Timestamp,
    time: pd.Timestamp,
    state: Tensor,
    bounds: Bounds | None = None,
) -> Frame:
    """A frame of normalised states (M, C, H, W), rounded to what float32 in SI units holds."""
    then = pd.DatetimeIndex([time])
    physical = world.denormalise(state[None], then).float()
    physical = physical if bounds is None else bounds(physical)
    return Frame(start, time, world.normalise(physical, then)[0], physical[0])


def _worst(state: Tensor) -> Tensor:
    """(M, C): largest normalised value of each member and channel; infinity where not finite."""
    return torch.nan_to_num(state.abs(), nan=torch.inf).flatten(2).amax(2)
