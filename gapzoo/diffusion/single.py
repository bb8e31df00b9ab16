"""One evaluation of the network makes a draw: by weights that were measured.

The sampler ``single`` starts at the noise-to-signal ratio r as a draw of the reference's marginal,
x_r = m + d, d ~ N(0, C + r^2), has the network say what the reference does not know there,

    e = x_hat - m - W d,      W = C (C + r^2)^-1        (gapzoo.diffusion.samplers.exponential)

and goes to the state at once, mode by mode:

    x = r_w (c m + b e) + s a k d,      k = (C / (C + r^2))^1/2.

An integrator's a and b are assumptions about e below r (with f = e / sd constant a is 1 and b
1.1 to 1.6), and modes whose C is far below r^2 come out with a third of their variance too much.
Here all three follow from what draws are for. Of truths t and two draws each, with m', d', e' those
of the other (m' is m where the forecaster draws nothing), averages over forecasts and over modes of
like C, every mode by its own variance:

    c, b:   <t m> = c <m m'> + b <m e'>         the truth's regression on the mean of draws
            <t e> = c <m e'> + b <e e'>
    a:      <(x - x')^2> / 2 = <(t - x) (t - x')>         draws are apart as far as they err

Together they give a draw the truth's variance too, and a share c of m below 1 is what it takes: e
goes along with m, so that without it either spread or variance would be wrong.

Errors of different modes go together, which C does not know: so left, winds of the stratosphere are
drawn half as much again too far apart and its humidity a third too little, and small waves have too
much of what the forecast holds in one channel and too little in another. So r_w and s scale the
Fourier coefficients of both parts by channel, latitude and zonal wavenumber: r_w is the truth's
regression on the first part there, s by the condition of a.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gapzoo.core import GapzooError
from gapzoo.diffusion.covariance import CovarianceOperator
from gapzoo.diffusion.modes import gridded
from gapzoo.diffusion.moments import place
from gapzoo.diffusion.once import Once
from gapzoo.diffusion.zonal import ZonalCovariance

RATIO = 1.0
"""Noise-to-signal ratio r at which the network is asked."""
BINS, LEAST, MOST = 25, 1e-3, 30.0
"""Bins of C by their middles, evenly spaced in logarithm."""
FEWEST = 8
"""Modes that a bin must have, to count."""
LARGEST = 2.0
"""Of c, a and b."""
SCALED = 3.0
"""Of r_w and s."""
NOTHING = 1e-4
"""Share of the mean power of a circle's wavenumbers below which r_w and s stay at 1."""


@dataclass(frozen=True)
class Evaluation:
    """What one evaluation had and gave, twice, (B,C,H,W) each.

    Args:
        truth: t.
        mean: m, of two draws of the forecaster's; twice the same where it draws nothing.
        apart: d, of two noises.
        unknown: e, of both.
    """

    truth: Tensor
    mean: tuple[Tensor, Tensor]
    apart: tuple[Tensor, Tensor]
    unknown: tuple[Tensor, Tensor]


@dataclass(frozen=True)
class SingleWeights:
    """The tables of c, a and b, and r_w and s.

    Args:
        table: (3, BINS).
        scale: (2, C, H, W//2+1); or (C, H) of s alone, all wavenumbers alike.
    """

    table: Tensor
    scale: Tensor

    def __post_init__(self) -> None:
        if self.table.shape != (3, BINS) or not torch.isfinite(self.table).all():
            raise GapzooError(
                f"weights of a single evaluation of shape {tuple(self.table.shape)}; they are "
                f"(3, {BINS}) finite numbers, fit them anew with 'gapzoo calibrate'"
            )
        shape = tuple(self.scale.shape)
        fits = len(shape) == 2 or (len(shape) == 4 and shape[0] == 2)
        if not fits or not torch.isfinite(self.scale).all():
            raise GapzooError(
                f"scales of a single evaluation of shape {shape}; they are two a channel, latitude "
                "and wavenumber, fit them anew with 'gapzoo calibrate'"
            )

    def __call__(self, variance: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """c, a and b of modes of variances C (N,), linear in the logarithm."""
        low, share = place(variance, LEAST, MOST, BINS)
        table = self.table.to(variance)
        c, a, b = torch.lerp(table[:, low], table[:, low + 1], share)
        return c, a, b

    @property
    def digest(self) -> str:
        """What tells tables apart, where they are written of."""
        parts = [part.float().cpu().numpy().tobytes() for part in (self.table, self.scale)]
        return hashlib.sha256(b"".join(parts)).hexdigest()[:12]

    def drawn(self, apart: Tensor, covariance: CovarianceOperator) -> Tensor:
        """s a k d of d (B,C,H,W)."""

        def left(variance: Tensor) -> Tensor:
            return self(variance)[1] * (variance / (variance + RATIO**2)).sqrt()

        return self._scaled((1, covariance.filter(apart, left)))

    def told(self, mean: Tensor, unknown: Tensor, covariance: CovarianceOperator) -> Tensor:
        """r_w (c m + b e) of m and e (B,C,H,W)."""
        known = covariance.filter(mean, lambda variance: self(variance)[0])
        known = known + covariance.filter(unknown, lambda variance: self(variance)[2])
        return self._scaled((0, known))

    def _scaled(self, *parts: tuple[int, Tensor]) -> Tensor:
        """Sum of fields (B,C,H,W), each with the scale at its number: 0 is r_w, 1 is s."""
        if self.scale.ndim == 2:
            whole = (torch.ones(1, 1), self.scale)
            return sum(whole[at][..., None].to(v) * v for at, v in parts)  # type: ignore[return-value]
        scale, width = self.scale.to(parts[0][1]), parts[0][1].shape[-1]
        return torch.fft.irfft(sum(scale[at] * torch.fft.rfft(v) for at, v in parts), n=width)

    def state(self, once: Once) -> Tensor:
        """r_w (c m + b e) + s a k d (B,C,H,W) of an evaluation in modes."""
        variance = once.variance
        c, a, b = self(variance)
        left = (variance / (variance + RATIO**2)).sqrt()
        drawn, told = once.apart.times(a * left), once.mean.times(c) + once.unknown.times(b)
        if bool((self.scale == 1).all()):
            return (told + drawn).grid()
        first, second = gridded(told, drawn)
        return self._scaled((0, first), (1, second))

    @classmethod
    def of(cls, table: Tensor, scale: Tensor | None) -> SingleWeights:
        """From a checkpoint; a table of a and b alone, as some have it, leaves all else at 1."""
        if table.shape == (2, BINS):
            table = torch.cat([torch.ones(1, BINS), table])
            scale = torch.ones(1, 1) if scale is None else scale
        return cls(table, torch.empty(0) if scale is None else scale)

    @classmethod
    def fit(
        cls,
        evaluations: Iterable[Evaluation],
        covariance: ZonalCovariance,
    ) -> SingleWeights:
        """From evaluations on truths that neither network nor errors were fitted to.

        Args:
            evaluations: at ``RATIO``; all are held in memory.
            covariance: C.
        """
        evaluations = list(evaluations)
        if not evaluations:
            raise GapzooError("no evaluations to fit weights to")
        sums = torch.zeros(len(_PAIRS), BINS, dtype=torch.float64)
        inside = sum(covariance.ranks)
        low, share = place(covariance.eigenvalues[:inside], LEAST, MOST, BINS)
        nearest = low + (share > 0.5).long()
        for one in evaluations:
            products = _products(one, covariance).double() * covariance.often.double()
            sums.index_add_(1, nearest, products)
        known = torch.bincount(nearest, minlength=BINS) >= FEWEST
        kept = _kept(covariance.eigenvalues[:inside], nearest)
        channels, height, width = covariance.shape
        found = cls(_filled(sums, kept, known), torch.ones(2, channels, height, width // 2 + 1))
        for at, scale in enumerate((_shares, _scales)):
            found.scale[at] = scale(found, evaluations, covariance)
        return found


_PAIRS = ("tt", "tm", "te", "mm", "mm'", "me", "me'", "ee", "ee'", "dd", "de")
"""By their letters; a dash is the other draw's."""


def _products(one: Evaluation, covariance: ZonalCovariance) -> Tensor:
    """(len(_PAIRS), N): sums over states of Re(a b*), means over the two draws."""
    parts = {"m": one.mean, "d": one.apart, "e": one.unknown, "t": (one.truth, one.truth)}
    modes = {name: [covariance.analyse(v) for v in pair] for name, pair in parts.items()}

    def product(first: str, second: str, dash: str = "") -> Tensor:
        other = modes[second][::-1] if dash else modes[second]
        both = zip(modes[first], other, strict=True)
        return torch.stack([(p * q.conj()).real.sum(0) for p, q in both]).mean(0)

    return torch.stack([product(*name) for name in _PAIRS])


def _shares(
    weights: SingleWeights, evaluations: Sequence[Evaluation], covariance: ZonalCovariance
) -> Tensor:
    """(C,H,W//2+1) r_w from draws with r_w = 1; as ``_scales``."""
    size = torch.zeros(2, *weights.scale.shape[1:], dtype=torch.float64)
    for one in evaluations:
        pairs = zip(one.mean, one.unknown, strict=True)
        p, q = (_waves(weights.told(mean, unknown, covariance)) for mean, unknown in pairs)
        t = _waves(one.truth)
        along = (t * (p + q).conj()).real / 2, (p * q.conj()).real
        size += torch.stack(along).sum(1)
    (found,), there = _smooth(size)
    return torch.where(there, found.clamp(0.0, SCALED), 1.0).float()


def _scales(
    weights: SingleWeights, evaluations: Sequence[Evaluation], covariance: ZonalCovariance
) -> Tensor:
    """(C,H,W//2+1) s from draws with s = 1; neighbours share what is found, but wavenumber 0."""
    size = torch.zeros(3, *weights.scale.shape[1:], dtype=torch.float64)
    for one in evaluations:
        size += _spreads(weights, one, covariance)
    (left, half), there = _smooth(size)
    found = ((half**2 + left).clamp(min=0).sqrt() - half).clamp(0.0, SCALED)
    return torch.where(there, found, 1.0).float()


def _smooth(sums: Tensor) -> tuple[Tensor, Tensor]:
    """Sums (N,C,H,M) over the last of them, smoothed, (N-1,C,H,M); where there is any of it."""
    *rest, last = _alike(sums, -2)
    there = last > NOTHING * last.mean(-1, keepdim=True)
    found = torch.where(there, torch.stack(rest) / last.clamp(min=1e-12), 0.0)
    count = _alike(there[..., 1:].double(), -1).clamp(min=1e-12)
    found[..., 1:] = _alike(found[..., 1:], -1) / count
    return found, there


def _spreads(weights: SingleWeights, one: Evaluation, covariance: ZonalCovariance) -> Tensor:
    """(3,C,H,W//2+1) sums over states: what is to be drawn, along what else differs, and is."""
    pairs = zip(one.mean, one.unknown, strict=True)
    p, q = (weights.told(mean, unknown, covariance) for mean, unknown in pairs)
    n, o = (weights.drawn(apart, covariance) for apart in one.apart)
    off, other, apart, drawn = (_waves(v) for v in (one.truth - p, one.truth - q, p - q, n - o))
    left = (off * other.conj()).real - apart.abs().square() / 2
    parts = (left, (apart * drawn.conj()).real / 2, drawn.abs().square() / 2)
    return torch.stack(parts).sum(1)


def _waves(fields: Tensor) -> Tensor:
    """(B,C,H,W//2+1) Fourier coefficients."""
    return torch.fft.rfft(fields.double(), norm="ortho")


def _alike(values: Tensor, dim: int) -> Tensor:
    """Means of three neighbours along an axis, of two at its ends."""
    moved = values.movedim(dim, -1)
    rows, count = (torch.nn.functional.pad(v, (1, 1)) for v in (moved, torch.ones_like(moved)))
    total, weight = (v[..., :-2] + v[..., 1:-1] + v[..., 2:] for v in (rows, count))
    return (total / weight).movedim(-1, dim)


def _kept(variance: Tensor, nearest: Tensor) -> Tensor:
    """(BINS,) root mean square of k over the modes of a bin."""
    share = (variance / (variance + RATIO**2)).double()
    total = torch.zeros(BINS, dtype=torch.float64).index_add_(0, nearest, share)
    return (total / torch.bincount(nearest, minlength=BINS).clamp(min=1)).sqrt()


def _filled(sums: Tensor, kept: Tensor, known: Tensor) -> Tensor:
    """(3, BINS) of the sums of products by bin; bins with few modes take what is beside them."""
    if not known.any():
        raise GapzooError(f"no bin of variances has {FEWEST} modes; the covariance has too few")
    at = torch.arange(BINS)[known].numpy()
    found = [_solved(dict(zip(_PAIRS, sums[:, i].tolist(), strict=True)), kept[i]) for i in at]
    parts = [np.interp(np.arange(BINS), at, values) for values in zip(*found, strict=True)]
    return torch.from_numpy(np.stack(parts)).float()


def _solved(p: dict[str, float], kept: Tensor) -> tuple[float, float, float]:
    """c, a and b of one bin; a is 0 where draws are too far apart without any noise."""
    c, b = _regressed(p)
    error = p["tt"] - 2 * (c * p["tm"] + b * p["te"])
    error += c**2 * p["mm'"] + 2 * c * b * p["me'"] + b**2 * p["ee'"]
    own = c**2 * (p["mm"] - p["mm'"]) + b**2 * (p["ee"] - p["ee'"])
    own += 2 * c * b * (p["me"] - p["me'"])
    half, square = float(kept) * b * p["de"], float(kept) ** 2 * p["dd"]
    root = math.sqrt(max(half**2 + square * (error - own), 0.0))
    return c, min(max((root - half) / max(square, 1e-12), 0.0), LARGEST), b


def _regressed(p: dict[str, float]) -> tuple[float, float]:
    """c and b, 0 to LARGEST; c alone where e tells nothing, b alone where m does not."""
    alone = p["tm"] / max(p["mm'"], 1e-12), p["te"] / max(p["ee'"], 1e-12)
    size = p["mm'"] * p["ee'"] - p["me'"] ** 2
    if size <= 1e-6 * abs(p["mm'"] * p["ee'"]):
        return min(max(alone[0], 0.0), LARGEST), 0.0
    c = (p["tm"] * p["ee'"] - p["te"] * p["me'"]) / size
    b = (p["te"] * p["mm'"] - p["tm"] * p["me'"]) / size
    if b < 0:
        c, b = alone[0], 0.0
    if c < 0:
        c, b = 0.0, alone[1]
    return min(c, LARGEST), min(b, LARGEST)
