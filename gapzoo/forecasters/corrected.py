"""What a network gets wrong linearly, taken off its forecasts.

A network that was not trained for long errs in ways that its own forecast f and the state x that it
started from tell. Regressed on both within each zonal wavenumber, in the leading modes of a prior's
covariance (of unit variance each), the truth t is

    t = f + M_m [f; x] + e,      M_m = <(t - f) p^H> (<p p^H> + s I)^-1,      p = [f; x]

with averages over forecasts of the training years (model output statistics, Glahn & Lowry 1972, by
matrices instead of numbers; ridge regression, Hoerl & Kennard 1970). One s for all wavenumbers is
chosen on the last of those years. Such matrices commute with rotations about the axis: they know
latitudes, channels and scales, no longitude.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from gapzoo.core import GapzooError, MemberGenerator
from gapzoo.diffusion.modes import along, on_grid, waves_of
from gapzoo.diffusion.zonal import ZonalCovariance
from gapzoo.forecasters.base import Forecaster

RIDGES = (0.003, 0.01, 0.03, 0.1, 0.3)
"""s that are tried."""
NAME = "correction"
LEAST = 0.3
"""Variance of a mode from which on it counts as leading, normalised."""
Batches = Iterable[tuple[Tensor, Tensor, Tensor]]
"""Forecasts, truths and starting states, (N,C,H,W) each, normalised."""
Leading = list[tuple[Tensor, Tensor]]
"""Vectors (C*H, K_m) and roots of variances (K_m,) of each wavenumber."""


@dataclass(frozen=True)
class Correction:
    """The matrices of one lead.

    Args:
        basis: covariance whose modes they act on.
        least: variance of a mode from which on it counts as leading, normalised.
        matrices: M_m (K_m, 2 K_m) complex of each wavenumber.
    """

    basis: ZonalCovariance
    least: float
    matrices: list[Tensor]
    _there: dict[torch.device, Leading] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        count = [int(k.sum()) for k in self.basis.above(self.least)]
        if [tuple(m.shape) for m in self.matrices] != [(k, 2 * k) for k in count]:
            raise GapzooError(
                f"a correction of {sum(len(m) for m in self.matrices)} modes, where the prior has "
                f"{sum(count)} of variance {self.least:g} or more; fit it with 'gapzoo calibrate'"
            )

    def __call__(self, forecast: Tensor, start: Tensor) -> Tensor:
        """A forecast (B,C,H,W) from a state, alike, corrected."""
        waves, leading = waves_of(torch.cat([forecast, start])), self._leading(forecast.device)
        each = zip(waves, leading, self.matrices, strict=True)
        added = [((_predictors(w, e, r) @ m.T.to(w)) * r) @ e.T for w, (e, r), m in each]
        return forecast + on_grid(added, self.basis.shape)

    def _leading(self, device: torch.device) -> Leading:
        """Moved to a device once."""
        if device not in self._there:
            own = leading(self.basis, self.least)
            self._there[device] = [(e.to(device), r.to(device)) for e, r in own]
        return self._there[device]

    def to_tensors(self, name: str) -> dict[str, Tensor]:
        """For a checkpoint: pairs of float16, by wavenumber."""
        pairs = {f"{name}.{n}": torch.view_as_real(m).half() for n, m in enumerate(self.matrices)}
        return {**pairs, f"{name}.least": torch.tensor(self.least)}

    @classmethod
    def from_tensors(
        cls, tensors: dict[str, Tensor], name: str, basis: ZonalCovariance
    ) -> Correction:
        """The inverse of ``to_tensors``."""
        pairs = [tensors[f"{name}.{m}"].float() for m in range(len(basis.ranks))]
        matrices = [torch.view_as_complex(pair.contiguous()) for pair in pairs]
        return cls(basis, float(tensors[f"{name}.least"]), matrices)

    @classmethod
    def fit(
        cls, early: Batches, late: Batches, basis: ZonalCovariance, least: float = LEAST
    ) -> tuple[Correction, float]:
        """From forecasts of the training years.

        Args:
            early, late: batches, each read once; the late ones choose s.
            basis, least: see the class.

        Returns:
            The correction, from all of them, and the share of the late ones' squared error in the
            leading modes that the early ones' leaves.
        """
        own = leading(basis, least)
        first, last = _Sums.over(early, own), _Sums.over(late, own)
        often = basis.weights.tolist()
        left = {s: last.error(first.solved(s), own, often) for s in RIDGES}
        best = min(left, key=lambda s: left[s])
        matrices = first.plus(last).solved(best)
        nothing = last.error([torch.zeros_like(m) for m in matrices], own, often)
        return cls(basis, least, [m.to(torch.complex64) for m in matrices]), left[best] / nothing


def correction_name(hours: int) -> str:
    """Of the tensors of a lead in a checkpoint."""
    return f"{NAME}{hours}"


def corrections(tensors: dict[str, Tensor], basis: ZonalCovariance) -> dict[int, Correction]:
    """Those of a checkpoint's tensors, by lead in hours.

    Raises:
        GapzooError: where they are of another basis.
    """
    ends = [key.removesuffix(".least") for key in tensors if key.endswith(".least")]
    names = [name for name in ends if name.startswith(NAME)]
    return {int(n.removeprefix(NAME)): Correction.from_tensors(tensors, n, basis) for n in names}


def leading(basis: ZonalCovariance, least: float) -> Leading:
    """The modes of a variance of ``least`` or more."""
    levels = basis.eigenvalues[: sum(basis.ranks)].split(basis.ranks)
    each = zip(basis.vectors, levels, basis.above(least), strict=True)
    return [(e[:, kept].contiguous(), level[kept].sqrt()) for e, level, kept in each]


def _predictors(waves: Tensor, vectors: Tensor, root: Tensor) -> Tensor:
    """(B, 2 K) of the Fourier coefficients (2 B, C*H) of forecasts and starts."""
    found = along(waves, vectors) / root
    return torch.cat(found.chunk(2), 1)


@dataclass(frozen=True)
class _Sums:
    """Of each wavenumber, over forecasts: p* p^T, p* r^T and |r|^2, r what is to be added."""

    count: int
    parts: list[tuple[Tensor, Tensor, Tensor]]

    @classmethod
    def over(cls, batches: Batches, own: Leading) -> _Sums:
        sizes = [len(r) for _, r in own]
        shapes = [((2 * k, 2 * k), (2 * k, k), (k,)) for k in sizes]
        double = torch.complex128
        parts = [tuple(torch.zeros(s, dtype=double) for s in shape) for shape in shapes]
        count = 0
        for forecasts, truths, starts in batches:
            waves, wrong = waves_of(torch.cat([forecasts, starts])), waves_of(truths - forecasts)
            for w, missing, (e, root), (square, both, power) in zip(
                waves, wrong, own, parts, strict=True
            ):
                p, r = _predictors(w, e, root), along(missing, e) / root
                square += p.mH @ p
                both += p.mH @ r
                power += r.abs().square().sum(0)
            count += len(forecasts)
        if not count:
            raise GapzooError("no forecasts to fit a correction to")
        return cls(count, parts)  # type: ignore[arg-type]

    def plus(self, other: _Sums) -> _Sums:
        pairs = zip(self.parts, other.parts, strict=True)
        added = [tuple(a + b for a, b in zip(x, y, strict=True)) for x, y in pairs]
        return _Sums(self.count + other.count, added)  # type: ignore[arg-type]

    def solved(self, ridge: float) -> list[Tensor]:
        """M_m under s."""
        found = []
        for square, both, _ in self.parts:
            steady = ridge * self.count * torch.eye(len(square), dtype=square.dtype)
            found.append(torch.linalg.solve(square + steady, both).T)
        return found

    def error(self, matrices: Sequence[Tensor], own: Leading, often: Sequence[float]) -> float:
        """Squared error that matrices leave, summed over modes by their variance."""
        total = 0.0
        each = zip(self.parts, matrices, own, often, strict=True)
        for (square, both, power), m, (_, root), weight in each:
            b = m.T
            cross, own_square = (b.conj() * both).sum(0).real, (b.conj() * (square @ b)).sum(0).real
            left = power.real - 2 * cross + own_square
            total += weight * float((left * root.double() ** 2).sum())
        return total


class Corrected(Forecaster):
    """A forecaster whose steps of known leads are corrected.

    Args:
        forecaster: in the world whose states the corrections are of.
        corrections: by lead in hours; other leads stay as they are.
    """

    def __init__(self, forecaster: Forecaster, corrections: dict[int, Correction]) -> None:
        super().__init__(forecaster.world)
        self.plain, self.corrections = forecaster, corrections
        self.stochastic = forecaster.stochastic

    def step(
        self,
        state: Tensor,
        time: pd.Timestamp,
        hours: int,
        forcing: np.ndarray | None = None,
        generator: MemberGenerator | None = None,
    ) -> Tensor:
        """See Forecaster."""
        found = self.plain.step(state, time, hours, forcing, generator)
        return self._corrected(found, state, hours)

    def steps(
        self,
        states: Sequence[Tensor],
        times: Sequence[pd.Timestamp],
        hours: int,
        forcings: Sequence[np.ndarray | None],
        generators: Sequence[MemberGenerator],
    ) -> list[Tensor]:
        """See Forecaster."""
        found = self.plain.steps(states, times, hours, forcings, generators)
        together = self._corrected(torch.cat(list(found)), torch.cat(list(states)), hours)
        return list(together.split([len(state) for state in states]))

    def _corrected(self, forecast: Tensor, start: Tensor, hours: int) -> Tensor:
        known = self.corrections.get(hours)
        return forecast if known is None else known(forecast, start)
