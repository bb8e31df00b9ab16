"""What a network gets wrong and simple physics knows, taken off its forecasts by matrices.

A network that was not trained for long errs in ways that its own forecast f, the state x that it
started from and the adiabatic tendency N between them (``gapzoo.core.primitive``) tell. Regressed
on all three within each zonal wavenumber, in the modes of a prior's covariance, the truth t is

    t = f + M_m p + e,   M_m = <(t - f) p^H> (<p p^H> + s I)^-1,   p = [f; x; N((x + f) / 2)]

with averages over forecasts of the training years, every number of p of unit variance (model output
statistics, Glahn & Lowry 1972, by matrices; ridge regression, Hoerl & Kennard 1970). One s for all
wavenumbers is chosen on the last of those years. Such matrices commute with rotations about the
axis: they know latitudes, channels and scales, no longitude; what land and mountains, waves and the
flow do to each other is in N. A world without winds on levels has no N, and goes without. What is
added is bounded by what was usual (``Correction.bounded``).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from gapzoo.core import GapzooError
from gapzoo.diffusion.modes import along, on_grid, waves_of
from gapzoo.diffusion.zonal import ZonalCovariance

RIDGES = (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1)
"""s that are tried."""
TINY = 1e-12
LEAST = 0.3
"""Variance of a mode from which on it counts as leading, normalised."""
BOUND = 6.0
"""Root mean squares of what is usual that a state is corrected by at most."""
Bases = list[tuple[Tensor, Tensor, Tensor]]
"""Of each wavenumber: leading vectors (C*H, K_m), roots of variances (K_m,), all (C*H, R_m)."""


@dataclass(frozen=True)
class Correction:
    """The matrices of one lead.

    Args:
        basis: covariance in whose modes they act.
        least: variance of a mode from which on it counts as leading, normalised.
        matrices: M_m (K_m, P_m) complex of each wavenumber, from its predictors: K_m leading modes
            of forecast and start, and all R_m of N where it is known.
        scales: (P_m,) root mean squares of the predictors.
        most: (C, 1, 1) that a state is corrected by at any point; None sets no bound.
    """

    basis: ZonalCovariance
    least: float
    matrices: list[Tensor]
    scales: list[Tensor]
    most: Tensor | None = None
    _there: dict[torch.device, Bases] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        ranks, count = self.basis.ranks, [int(k.sum()) for k in self.basis.above(self.least)]
        plain = [(k, 2 * k) for k in count]
        flowing = [(k, 2 * k + r * (k > 0)) for k, r in zip(count, ranks, strict=True)]
        if [tuple(m.shape) for m in self.matrices] not in (plain, flowing):
            raise GapzooError(
                f"a correction of {sum(len(m) for m in self.matrices)} modes, where the prior has "
                f"{sum(count)} of variance {self.least:g} or more; fit it with 'gapzoo calibrate'"
            )

    @property
    def flowing(self) -> bool:
        """Whether N is among the predictors."""
        return any(m.shape[1] > 2 * len(m) for m in self.matrices)

    def __call__(self, forecast: Tensor, start: Tensor, flow: Tensor | None = None) -> Tensor:
        """A forecast corrected.

        Args:
            forecast: (B, C, H, W).
            start: the states that it started from, alike.
            flow: N between them, alike; needed where ``flowing``.
        """
        own = self._bases(forecast.device)
        told = _predictors(forecast, start, flow, own)
        each = zip(told, self.matrices, self.scales, own, strict=True)
        added = [((p / d.to(p)) @ m.T.to(p) * r) @ e.T for p, m, d, (e, r, _) in each]
        change = on_grid(added, self.basis.shape)
        if self.most is not None:
            most = self.most.to(change)
            change = change.clamp(-most, most)
        return forecast + change

    def bounded(self, changes: Iterable[Tensor]) -> Correction:
        """The same, by no more than ``BOUND`` root mean squares of corrections (B, C, H, W).

        Matrices that act on a product of the state with itself know no bounds: in forecasts from
        analyses humidity at the tropopause grew by half a step without one.
        """
        power = [change.square().mean((2, 3)) for change in changes]
        return replace(self, most=BOUND * torch.cat(power).mean(0).sqrt()[:, None, None])

    def _bases(self, device: torch.device) -> Bases:
        """Moved to a device once."""
        if device not in self._there:
            moved = [tuple(v.to(device) for v in each) for each in bases(self.basis, self.least)]
            self._there[device] = moved  # type: ignore[assignment]
        return self._there[device]

    def to_tensors(self, name: str) -> dict[str, Tensor]:
        """For a checkpoint: pairs of float16, by wavenumber."""
        pairs = {f"{name}.{n}": torch.view_as_real(m).half() for n, m in enumerate(self.matrices)}
        scales = {f"{name}.scale.{n}": d for n, d in enumerate(self.scales)}
        bound = {} if self.most is None else {f"{name}.most": self.most}
        return {**pairs, **scales, **bound, f"{name}.least": torch.tensor(self.least)}

    @classmethod
    def from_tensors(
        cls, tensors: dict[str, Tensor], name: str, basis: ZonalCovariance
    ) -> Correction:
        """The inverse of ``to_tensors``."""
        if f"{name}.scale.0" not in tensors or "-" not in name:
            raise GapzooError(f"'{name}' is of an older form; fit it anew with 'gapzoo calibrate'")
        pairs = [tensors[f"{name}.{m}"].float() for m in range(len(basis.ranks))]
        matrices = [torch.view_as_complex(pair.contiguous()) for pair in pairs]
        scales = [tensors[f"{name}.scale.{m}"] for m in range(len(basis.ranks))]
        least, most = float(tensors[f"{name}.least"]), tensors.get(f"{name}.most")
        return cls(basis, least, matrices, scales, most)


class Fit:
    """Finds a correction from forecasts of the training years.

    Args:
        basis, least: see Correction.
    """

    def __init__(self, basis: ZonalCovariance, least: float = LEAST) -> None:
        self.basis, self.least, self.own = basis, least, bases(basis, least)
        self.early, self.late = _Sums(), _Sums()

    def add(
        self, forecast: Tensor, truth: Tensor, start: Tensor, flow: Tensor | None, late: bool
    ) -> None:
        """Count a batch.

        Args:
            forecast, truth, start, flow: (N, C, H, W) each; flow is N between or None.
            late: whether it serves to choose s, not to find the matrices that are judged for it.
        """
        told = list(_predictors(forecast, start, flow, self.own))
        (self.late if late else self.early).add(told, waves_of(truth - forecast), self.own)

    def solve(self) -> tuple[Correction, float]:
        """The correction, from all batches.

        Returns:
            It, and the share of the late ones' squared error in the leading modes that the early
            ones' leaves.

        Raises:
            GapzooError: where there were none.
        """
        often, whole = self.basis.weights.tolist(), self.early.plus(self.late)
        if not (self.early.count and self.late.count):
            raise GapzooError("no forecasts to fit a correction to")
        left = {s: self.late.error(self.early.solved(s), self.own, often) for s in RIDGES}
        best = min(left, key=lambda s: left[s])
        matrices, scales = whole.solved(best), whole.scales
        nothing = self.late.error([torch.zeros_like(m) for m in matrices], self.own, often)
        kept = [(m * d).to(torch.complex64) for m, d in zip(matrices, scales, strict=True)]
        found = Correction(self.basis, self.least, kept, [d.float() for d in scales])
        return found, left[best] / nothing


def bases(basis: ZonalCovariance, least: float) -> Bases:
    """The modes of a variance of ``least`` or more, and all of them where there are such."""
    levels = basis.eigenvalues[: sum(basis.ranks)].split(basis.ranks)
    each = zip(basis.vectors, levels, basis.above(least), strict=True)
    return [
        (e[:, kept].contiguous(), level[kept].sqrt(), e if kept.any() else e[:, :0])
        for e, level, kept in each
    ]


def _predictors(
    forecast: Tensor, start: Tensor, flow: Tensor | None, own: Bases
) -> Iterator[Tensor]:
    """(B, P_m) of each wavenumber."""
    moving = [] if flow is None else [flow]
    waves = waves_of(torch.cat([forecast, start, *moving])).split(len(forecast), 1)
    for m, (lead, _, whole) in enumerate(own):
        told = [along(w[m], lead) for w in waves[:2]] + [along(w[m], whole) for w in waves[2:]]
        yield torch.cat(told, 1)


@dataclass
class _Sums:
    """Of each wavenumber, over forecasts: p* p^T, p* r^T and |r|^2, r what is to be added."""

    count: int = 0
    parts: list[tuple[Tensor, Tensor, Tensor]] = field(default_factory=list)

    def add(self, told: Sequence[Tensor], wrong: Tensor, own: Bases) -> None:
        """Predictors and Fourier coefficients of the errors of a batch, by wavenumber."""
        if not self.parts:
            pairs = zip(told, own, strict=True)
            self.parts = [_nothing(p.shape[1], len(root)) for p, (_, root, _) in pairs]
        each = zip(told, wrong, own, self.parts, strict=True)
        for p, missing, (e, root, _), (square, both, power) in each:
            r = along(missing, e) / root
            square += p.mH @ p
            both += p.mH @ r
            power += r.abs().square().sum(0)
        self.count += wrong.shape[1]

    @property
    def scales(self) -> list[Tensor]:
        """(P_m,) root mean squares of the predictors."""
        powers = [square.diagonal().real / self.count for square, _, _ in self.parts]
        return [power.clamp_min(TINY).sqrt() for power in powers]

    def plus(self, other: _Sums) -> _Sums:
        if not (self.count and other.count):
            return self if self.count else other
        pairs = zip(self.parts, other.parts, strict=True)
        added = [tuple(a + b for a, b in zip(x, y, strict=True)) for x, y in pairs]
        return _Sums(self.count + other.count, added)  # type: ignore[arg-type]

    def solved(self, ridge: float) -> list[Tensor]:
        """M_m under s, for predictors as they are."""
        found = []
        for (square, both, _), d in zip(self.parts, self.scales, strict=True):
            steady = torch.diag(ridge * self.count * d.square()).to(square)
            found.append(torch.linalg.solve(square + steady, both).T)
        return found

    def error(self, matrices: Sequence[Tensor], own: Bases, often: Sequence[float]) -> float:
        """Squared error that matrices leave, summed over modes by their variance."""
        total = 0.0
        for (square, both, power), m, (_, root, _), weight in zip(
            self.parts, matrices, own, often, strict=True
        ):
            b = m.T
            cross, own_square = (b.conj() * both).sum(0).real, (b.conj() * (square @ b)).sum(0).real
            left = power.real - 2 * cross + own_square
            total += weight * float((left * root.double() ** 2).sum())
        return total


def _nothing(predictors: int, kept: int) -> tuple[Tensor, Tensor, Tensor]:
    shapes = (predictors, predictors), (predictors, kept), (kept,)
    return tuple(torch.zeros(shape, dtype=torch.complex128) for shape in shapes)  # type: ignore[return-value]
