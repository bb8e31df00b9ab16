"""One evaluation of the network makes a draw: by weights that were measured.

The sampler ``single`` starts at the noise-to-signal ratio r as a draw of the reference's marginal,
x_r = m + d, d ~ N(0, C + r^2), has the network say what the reference does not know there,

    e = x_hat - m - W d,      W = C (C + r^2)^-1        (gapzoo.diffusion.samplers.exponential)

and goes to the state at once, mode by mode:

    x = m + a k d + b e,      k = (C / (C + r^2))^1/2.

An integrator's a and b are assumptions about e below r (with f = e / sd constant a is 1 and b
1.1 to 1.6), and modes whose C is far below r^2 come out with a third of their variance too much.
Here both follow from what draws are for. On truths t that m was forecast of, with e' of another
noise, averages over forecasts and over modes of like C,

    b:  <(t - m) e> = b <e e'>                  the truth's slope on the mean of draws
    a:  <x^2> = <m^2> + <(t - m)^2>             draws have the truths' variance

where m is regressed on truths, <m (t - m)> = 0 (``RegressedErrors``); what e has along m counts as
variance of x.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gapzoo.core import GapzooError
from gapzoo.diffusion.moments import place
from gapzoo.diffusion.zonal import ZonalCovariance

RATIO = 1.0
"""Noise-to-signal ratio r at which the network is asked."""
BINS, LEAST, MOST = 25, 1e-3, 30.0
"""Bins of C by their middles, evenly spaced in logarithm."""
FEWEST = 8
"""Modes that a bin must have, to count."""
LARGEST = 2.0
"""Of a and b."""


@dataclass(frozen=True)
class Evaluation:
    """What one evaluation had and gave, twice, (B,C,H,W) each.

    Args:
        truth: t.
        mean: m.
        apart: d, of two noises.
        unknown: e, of the same two.
    """

    truth: Tensor
    mean: Tensor
    apart: tuple[Tensor, Tensor]
    unknown: tuple[Tensor, Tensor]


@dataclass(frozen=True)
class SingleWeights:
    """The tables of a and b.

    Args:
        table: (2, BINS).
    """

    table: Tensor

    def __post_init__(self) -> None:
        if self.table.shape != (2, BINS) or not torch.isfinite(self.table).all():
            raise GapzooError(
                f"weights of a single evaluation of shape {tuple(self.table.shape)}; they are "
                f"(2, {BINS}) finite numbers, fit them anew with 'gapzoo calibrate'"
            )

    def __call__(self, variance: Tensor) -> tuple[Tensor, Tensor]:
        """a and b of modes of variances C (N,), linear in the logarithm."""
        low, share = place(variance, LEAST, MOST, BINS)
        table = self.table.to(variance)
        a, b = torch.lerp(table[:, low], table[:, low + 1], share)
        return a, b

    @property
    def digest(self) -> str:
        """What tells tables apart, where they are written of."""
        return hashlib.sha256(self.table.float().cpu().numpy().tobytes()).hexdigest()[:12]

    @classmethod
    def fit(
        cls,
        evaluations: Iterable[Evaluation],
        covariance: ZonalCovariance,
        climatology: ZonalCovariance,
    ) -> SingleWeights:
        """From evaluations on truths that neither network nor errors were fitted to.

        Args:
            evaluations: at ``RATIO``, read once.
            covariance: C.
            climatology: the truths'; every mode counts alike, in units of its variance.
        """
        sums, count = torch.zeros(len(_PRODUCTS), BINS, dtype=torch.float64), 0
        inside = sum(covariance.ranks)
        low, share = place(covariance.eigenvalues[:inside], LEAST, MOST, BINS)
        nearest = low + (share > 0.5).long()
        often = covariance.weights.repeat_interleave(torch.tensor(covariance.ranks))
        weight = often.double() / climatology.eigenvalues[:inside].double()
        for one in evaluations:
            products = _products(one, covariance).double() * weight
            sums.index_add_(1, nearest, products)
            count += len(one.truth)
        if not count:
            raise GapzooError("no evaluations to fit weights to")
        known = torch.bincount(nearest, minlength=BINS) >= FEWEST
        kept = _kept(covariance.eigenvalues[:inside], nearest)
        return cls(_filled(sums, kept, known))


_PRODUCTS = ("rr", "re", "ee", "both", "dd", "de", "me")


def _products(one: Evaluation, covariance: ZonalCovariance) -> Tensor:
    """(len(_PRODUCTS), N): sums over states of Re(a b*), means over the two noises; r = t - m."""
    r, m = ([covariance.analyse(v)] * 2 for v in (one.truth - one.mean, one.mean))
    d, e = ([covariance.analyse(v) for v in pair] for pair in (one.apart, one.unknown))
    pairs = [(r, r), (r, e), (e, e), (e, e[::-1]), (d, d), (d, e), (m, e)]
    found = [
        torch.stack([(p * q.conj()).real.sum(0) for p, q in zip(*x, strict=True)]) for x in pairs
    ]
    return torch.stack(found).mean(1)


def _kept(variance: Tensor, nearest: Tensor) -> Tensor:
    """(BINS,) root mean square of k over the modes of a bin."""
    share = (variance / (variance + RATIO**2)).double()
    total = torch.zeros(BINS, dtype=torch.float64).index_add_(0, nearest, share)
    return (total / torch.bincount(nearest, minlength=BINS).clamp(min=1)).sqrt()


def _filled(sums: Tensor, kept: Tensor, known: Tensor) -> Tensor:
    """(2, BINS) of the sums of products by bin; bins with few modes take what is beside them."""
    if not known.any():
        raise GapzooError(f"no bin of variances has {FEWEST} modes; the covariance has too few")
    at = torch.arange(BINS)[known].numpy()
    found = [_solved(dict(zip(_PRODUCTS, sums[:, i].tolist(), strict=True)), kept[i]) for i in at]
    parts = [np.interp(np.arange(BINS), at, values) for values in zip(*found, strict=True)]
    return torch.from_numpy(np.stack(parts)).float()


def _solved(p: dict[str, float], kept: Tensor) -> tuple[float, float]:
    """a and b of one bin; a is 0 where e alone has all of the variance."""
    b = min(max(p["re"] / max(p["both"], 1e-12), 0.0), LARGEST)
    half, square = float(kept) * b * p["de"], float(kept) ** 2 * p["dd"]
    rest = b**2 * p["ee"] + 2 * b * p["me"] - p["rr"]
    a = (math.sqrt(max(half**2 - square * rest, 0.0)) - half) / max(square, 1e-12)
    return min(max(a, 0.0), LARGEST), b
