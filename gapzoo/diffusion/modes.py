"""States held by their modes, in which gains and sums cost next to nothing.

A state v is, by zonal wavenumber, E c + (1 - E E^H) w: coefficients c along the EOFs E of a
covariance, and what of the Fourier coefficients w they do not span. A filter with the gains g of
the modes and g' of the tail takes c to g c and w to g' w; with p = E^H w kept beside them, going
back to the grid is E (c - p) + w. So a chain of filters and sums takes the two products with E,
half a filter each, once at its beginning and once at its end, and several states share one pass
through E, which is what takes the time where members are few.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from gapzoo.diffusion.zonal import ZonalCovariance


@dataclass(frozen=True)
class Modes:
    """A batch of states in the modes of a covariance.

    Args:
        basis: whose modes they are.
        waves: w, (W//2+1, B, C*H) complex.
        along: p, (B, sum of R_m) complex.
        inside: c, (B, sum of R_m) complex.
    """

    basis: ZonalCovariance
    waves: Tensor
    along: Tensor
    inside: Tensor

    def times(self, gains: Tensor) -> Modes:
        """Filtered by gains of all modes (B or 1, len(eigenvalues)), the tails' last."""
        gains = gains.reshape(-1, gains.shape[-1])
        tails, size = self.basis.tails(gains), self.inside.shape[1]
        by_wave = tails.repeat_interleave(self._ranks(gains), 1, output_size=size)
        waves = tails.T[:, :, None] * self.waves
        return Modes(self.basis, waves, by_wave * self.along, gains[:, :size] * self.inside)

    def __add__(self, other: Modes) -> Modes:
        parts = zip(self._parts(), other._parts(), strict=True)
        return Modes(self.basis, *[a + b for a, b in parts])

    def __sub__(self, other: Modes) -> Modes:
        return self + -1.0 * other

    def __rmul__(self, factor: float | Tensor) -> Modes:
        """Times a number, of all states alike."""
        return Modes(self.basis, *[factor * part for part in self._parts()])

    def grid(self) -> Tensor:
        """(B,C,H,W)."""
        return gridded(self)[0]

    def _parts(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.waves, self.along, self.inside

    def _ranks(self, like: Tensor) -> Tensor:
        return torch.tensor(self.basis.ranks, device=like.device)


def analysed(basis: ZonalCovariance, *states: Tensor) -> list[Modes]:
    """States (B,C,H,W), several B, in modes; all in one pass."""
    waves = waves_of(torch.cat(states) if len(states) > 1 else states[0])
    pairs = zip(waves, basis.vectors_for(waves), strict=True)
    found = torch.cat([along(w, e.to(w)) for w, e in pairs], 1)
    sizes = [len(state) for state in states]
    parts = zip(waves.split(sizes, 1), found.split(sizes), strict=True)
    return [Modes(basis, w, p, p) for w, p in parts]


def gridded(*states: Modes) -> list[Tensor]:
    """States in modes, of one basis, on the grid (B,C,H,W); all in one pass."""
    basis = states[0].basis
    left = torch.cat([one.inside - one.along for one in states]).split(basis.ranks, 1)
    waves = torch.cat([one.waves for one in states], 1)
    parts = zip(waves, left, basis.vectors_for(waves), strict=True)
    whole = on_grid([w + c @ e.T.to(c) for w, c, e in parts], basis.shape)
    return list(whole.split([one.waves.shape[1] for one in states]))


@dataclass(frozen=True)
class Blend:
    """A sum of filtered states that is yet to be computed: what goes on in modes needs no grid.

    Args:
        basis: of the filters.
        parts: of each a state (B or 1,C,H,W) and its gains, as ``Modes.times``.
    """

    basis: ZonalCovariance
    parts: tuple[tuple[Tensor, Tensor], ...]

    def grid(self) -> Tensor:
        """(B,C,H,W)."""
        return blended(self.basis, self)[0].grid()

    def to(self, like: Tensor) -> Blend:
        """The same, of another kind of numbers and place."""
        return Blend(self.basis, tuple((state.to(like), g.to(like)) for state, g in self.parts))


def blended(basis: ZonalCovariance, *values: Tensor | Blend) -> list[Modes]:
    """States and sums that are yet to be computed in modes of ``basis``; all in one pass."""
    each = [_parts(basis, value) for value in values]
    found = iter(analysed(basis, *[state for parts in each for state, _ in parts]))
    sums = []
    for parts in each:
        own = [(next(found), gains) for _, gains in parts]
        sums.append(reduce(add, [m if gains is None else m.times(gains) for m, gains in own]))
    return sums


def _parts(basis: ZonalCovariance, value: Tensor | Blend) -> Sequence[tuple[Tensor, Tensor | None]]:
    """States to analyse and their gains; a sum in another basis is computed first."""
    if isinstance(value, Blend) and basis.same_basis(value.basis):
        return value.parts
    return [(value.grid() if isinstance(value, Blend) else value, None)]


def waves_of(states: Tensor) -> Tensor:
    """(B,C,H,W) to (W//2+1, B, C*H) complex."""
    return torch.fft.rfft(states, norm="ortho").flatten(1, 2).permute(2, 0, 1)


def on_grid(waves: Sequence[Tensor], shape: tuple[int, int, int]) -> Tensor:
    """(B,C,H,W) of its Fourier coefficients (B, C*H), one wavenumber after another."""
    stacked = torch.stack(tuple(waves), -1).unflatten(1, shape[:2])
    return torch.fft.irfft(stacked, n=shape[2], norm="ortho")


def along(x: Tensor, e: Tensor) -> Tensor:
    """``x e*``: the coefficients (B, R) of x (B, N) along e (N, R), without a copy of e*."""
    return (x.conj() @ e).conj()
