"""SPEEDY runs side by side: one compiled integration of all, on the device that JAX has.

    frames of R runs = vmap(SpeedyModel.frame)

Each run has its own clock, its own sea surface and its own number of frames; one that has made
its own waits for the others, unchanged. A run is what ``SpeedyModel.advance`` makes of it but for
rounding: products of a batch are summed in another order. It is the same to the bit whatever the
others do, as long as there are as many of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
import pandas as pd

from gapzoo.speedy.model import Run, SpeedyModel, clock_of, start_jax


@dataclass(frozen=True)
class Runs:
    """R runs: their arrays stacked, on JAX's device, and the times they stand at."""

    dynamics: Any
    physics: Any
    times: pd.DatetimeIndex

    def split(self) -> list[Run]:
        """The runs one by one, in NumPy's arrays."""
        jax = start_jax()
        both = jax.device_get((self.dynamics, self.physics))
        rows = [jax.tree.map(lambda leaf, n=n: leaf[n], both) for n in range(len(self.times))]
        return [Run(row[0], row[1], time) for row, time in zip(rows, self.times, strict=True)]


def stacked(runs: Sequence[Run]) -> Runs:
    """Runs of one model side by side."""
    jax = start_jax()
    both = [(run.dynamics, run.physics) for run in runs]
    dynamics, physics = jax.tree.map(lambda *leaves: jax.numpy.stack(leaves), *both)
    return Runs(dynamics, physics, pd.DatetimeIndex([run.time for run in runs]))


@dataclass(frozen=True)
class Together:
    """Integrates runs side by side.

    Args:
        model: the simulator.
        frames: most frames of a call; it is compiled for so many.
    """

    model: SpeedyModel
    frames: int

    def advance(self, runs: Runs, sst: Sequence[np.ndarray]) -> tuple[Runs, Any]:
        """Begin to integrate a frame for each row of each run's ``sst``, and don't wait for it.

        Args:
            runs: where to go on from; not changed.
            sst: for each run (T, H, W) in K, held during each frame; T may differ, and be 0.

        Returns:
            The runs after it, and the frames (``frames``, R, C, H, W) float32 in SI units on
            JAX's device; a run's rows beyond its own T mean nothing.
        """
        jnp = start_jax().numpy
        counts = np.array([len(one) for one in sst], np.int32)
        field = np.zeros((self.frames, len(sst), *sst[0].shape[:0:-1]), np.float32)
        for number, one in enumerate(sst):
            field[: len(one), number] = np.swapaxes(one, -1, -2)
        clocks = start_jax().tree.map(
            lambda *leaves: jnp.stack(leaves), *(clock_of(time) for time in runs.times)
        )
        state = (runs.dynamics, runs.physics, clocks)
        dynamics, physics, out = self._advance(state, jnp.asarray(field), jnp.asarray(counts))
        times = runs.times + pd.to_timedelta(counts * self.model.hours, unit="h")
        return Runs(dynamics, physics, times), out

    @cached_property
    def _advance(self) -> Any:
        """Compiled: (dynamics, physics, clocks), sst (T, R, W, H), counts (R,) -> end, frames."""
        jax = start_jax()

        def advance(state: Any, sst: Any, counts: Any) -> Any:
            shape = (len(counts), len(self.model.channels), *self.model.grid.shape)
            nothing = jax.numpy.zeros(shape, "float32")

            def frame(carry: Any, now: Any) -> Any:
                number, field = now
                move = partial(self._frame, number < counts, field)
                some = number < counts.max()
                return jax.lax.cond(some, move, lambda carry: (carry, nothing), carry)

            numbers = jax.numpy.arange(self.frames, dtype="int32")
            (dynamics, physics, _), out = jax.lax.scan(frame, state, (numbers, sst))
            return dynamics, physics, out

        return jax.jit(advance)

    def _frame(self, moves: Any, field: Any, carry: Any) -> Any:
        """Traced: the runs that ``moves`` (R,) names a frame later, and a frame (R, C, H, W)."""
        jax = start_jax()
        after, (profile, log_pressure, surface) = jax.vmap(self._alone)(carry, field)
        units = self.model.si_units(profile, log_pressure, surface, jax.numpy)

        def kept(new: Any, old: Any) -> Any:
            return jax.numpy.where(moves.reshape(-1, *[1] * (new.ndim - 1)), new, old)

        return jax.tree.map(kept, after, carry), units

    def _alone(self, carry: Any, field: Any) -> Any:
        """Traced, of one run: ``SpeedyModel.frame``, its steps counted from 0 in every frame.

        A frame is a whole number of radiation's periods, so counts of several frames are due at
        the same steps; but one count that all runs share is a condition that all take alike, and
        shortwave radiation is then left out, not computed and thrown away, where it is not due.
        """
        (dynamics, physics, clock), name = carry, "_shortwave_rad"
        begun = {**physics, name: physics[name].copy(step=start_jax().numpy.int32(0))}
        (dynamics, after, clock), out = self.model.frame((dynamics, begun, clock), field)
        counted = after[name].copy(step=physics[name].step + self.model.steps)
        return (dynamics, {**after, name: counted}, clock), out
