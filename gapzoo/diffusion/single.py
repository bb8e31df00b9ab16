"""One evaluation of the network makes a draw: by weights that were measured.

The sampler ``single`` starts at the noise-to-signal ratio r as a draw of the reference's marginal,
x_r = m + d, d ~ N(0, C + r^2), has the network say what the reference does not know there,

    e = x_hat - m - W d,      W = C (C + r^2)^-1        (gapzoo.diffusion.samplers.exponential)

and goes to the state at once, mode by mode:

    x = c m + s a k d + b e,      k = (C / (C + r^2))^1/2.

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

Errors of different modes go together, which C does not know: with s = 1 winds of the stratosphere
are drawn half as much again too far apart and its humidity a third too little. So s scales what is
drawn by channel and latitude, by the condition of a there.
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
"""Of s."""


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
    """The tables of c, a and b, and s.

    Args:
        table: (3, BINS).
        scale: (C, H).
    """

    table: Tensor
    scale: Tensor

    def __post_init__(self) -> None:
        if self.table.shape != (3, BINS) or not torch.isfinite(self.table).all():
            raise GapzooError(
                f"weights of a single evaluation of shape {tuple(self.table.shape)}; they are "
                f"(3, {BINS}) finite numbers, fit them anew with 'gapzoo calibrate'"
            )
        if self.scale.ndim != 2 or not torch.isfinite(self.scale).all():
            raise GapzooError(
                f"scales of a single evaluation of shape {tuple(self.scale.shape)}; they are one a "
                "channel and latitude, fit them anew with 'gapzoo calibrate'"
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

        return self.scale[..., None].to(apart) * covariance.filter(apart, left)

    def told(self, mean: Tensor, unknown: Tensor, covariance: CovarianceOperator) -> Tensor:
        """c m + b e of m and e (B,C,H,W)."""
        known = covariance.filter(mean, lambda variance: self(variance)[0])
        return known + covariance.filter(unknown, lambda variance: self(variance)[2])

    def state(self, once: Once) -> Tensor:
        """c m + s a k d + b e (B,C,H,W) of an evaluation in modes."""
        variance = once.variance
        c, a, b = self(variance)
        left = (variance / (variance + RATIO**2)).sqrt()
        drawn, told = once.apart.times(a * left), once.mean.times(c) + once.unknown.times(b)
        if bool((self.scale == 1).all()):
            return (told + drawn).grid()
        first, second = gridded(told, drawn)
        return first + self.scale[..., None].to(second) * second

    @classmethod
    def of(cls, table: Tensor, scale: Tensor | None) -> SingleWeights:
        """From a checkpoint; a table of a and b alone, as some have it, leaves c and s at 1."""
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
        plain = cls(_filled(sums, kept, known), torch.ones(evaluations[0].truth.shape[1:3]))
        return cls(plain.table, _scales(plain, evaluations, covariance))


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


def _scales(
    weights: SingleWeights, evaluations: Sequence[Evaluation], covariance: ZonalCovariance
) -> Tensor:
    """(C,H) s from draws with s = 1; neighbouring latitudes share what is found."""
    sums = torch.zeros(4, *evaluations[0].truth.shape[1:3], dtype=torch.float64)
    for one in evaluations:
        pairs = zip(one.mean, one.unknown, strict=True)
        p, q = (weights.told(mean, unknown, covariance) for mean, unknown in pairs)
        n, o = (weights.drawn(apart, covariance) for apart in one.apart)
        parts = ((one.truth - p) * (one.truth - q), (p - q) ** 2 / 2, (p - q) * (n - o) / 2)
        found = [*parts, (n - o) ** 2 / 2]
        sums += torch.stack([v.double().mean(-1).sum(0) for v in found])
    error, own, half, square = _smooth(sums)
    root = (half**2 + square * (error - own)).clamp(min=0).sqrt()
    return ((root - half) / square.clamp(min=1e-12)).clamp(0.0, SCALED).float()


def _smooth(sums: Tensor) -> Tensor:
    """Means of three latitudes (...,H), of two at the ends."""
    rows = torch.nn.functional.pad(sums, (1, 1))
    count = torch.nn.functional.pad(torch.ones_like(sums), (1, 1))
    total, weight = (v[..., :-2] + v[..., 1:-1] + v[..., 2:] for v in (rows, count))
    return total / weight


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
