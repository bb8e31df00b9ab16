"""Regression of a field on series: an index such as Nino3.4, and the annual cycle.

At each point p, over samples b, with z_b the series (K of them) and d_b = (1, z_b),

    x_bp = d_b . beta_p + residual,   beta_p = (sum_b d_b d_b^T)^-1 sum_b d_b x_bp

for the ensemble mean (the mean of the members' regressions, as they share the series) and for the
truth. Only the two sums are stored. For the annual cycle z = (cos w t, sin w t), w = 2 pi / 365.25
days, t the time of year, so that

    amplitude = |beta|,   phase = arg(beta_cos + i beta_sin) / w   (day of the maximum)
    error = sqrt( <|beta_f - beta_o|^2> / <|beta_o|^2> )

(Wilks 2019, section 10.4). The pattern score of an index is the area-weighted uncentred
correlation of the two maps of beta.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from gapzoo.core import GapzooError
from gapzoo.evaluators import EVALUATORS
from gapzoo.evaluators.base import Evaluator, Sums
from gapzoo.evaluators.error import mean_error

YEAR = 365.25
"""Days."""


def coefficients(gram: Tensor, moments: Tensor) -> Tensor:
    """beta (...,D) from (...,D,D) and (...,D); NaN where the samples do not determine it."""
    scale = gram.diagonal(dim1=-2, dim2=-1).sqrt()
    unit = gram / (scale[..., :, None] * scale[..., None, :])
    known = torch.isfinite(unit).all(-1).all(-1)
    eye = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    unit = torch.where(known[..., None, None], unit, eye)
    known &= torch.linalg.eigvalsh(unit)[..., 0] > 1e-10
    unit = torch.where(known[..., None, None], unit, eye)
    beta = torch.linalg.solve(unit, (moments / scale)[..., None])[..., 0] / scale
    return torch.where(known[..., None], beta, torch.nan)


def amplitude_and_phase(cosine: Tensor, sine: Tensor) -> tuple[Tensor, Tensor]:
    """Amplitude, and the day of the maximum after 1 January, 0 to 365.25."""
    day = torch.atan2(sine, cosine) * YEAR / (2 * torch.pi)
    return torch.hypot(cosine, sine), day.remainder(YEAR)


class Regression(Evaluator):
    """Base: sums of the normal equations at each point."""

    statistics = ("gram", "forecast_moments", "truth_moments", "share")
    regressors: ClassVar[int] = 1

    @torch.no_grad()
    def samples(
        self,
        forecast: Tensor,
        truth: Tensor,
        mask: Tensor | None = None,
        climatology: Tensor | None = None,
        series: Tensor | None = None,
    ) -> Sums:
        """As ``Evaluator.samples``; ``series`` is (B,K,*E) or broadcastable to it."""
        weight = self.checked(forecast, truth, mask, climatology).expand(truth.shape)
        design, counts = self._design(series, truth), weight > 0
        f = mean_error(forecast, truth).double() + truth.double()
        kept = [torch.where(counts, x.double(), 0).flatten(-2) for x in (f, truth, counts)]
        d = design.movedim(1, -1)
        gram = d[..., :, None] * d[..., None, :]
        return {
            "weight": weight.new_ones(truth.shape[:-2]),
            "gram": (gram.flatten(-2)[..., None] * kept[2][..., None, :]).flatten(-2),
            "forecast_moments": (d[..., None] * kept[0][..., None, :]).flatten(-2),
            "truth_moments": (d[..., None] * kept[1][..., None, :]).flatten(-2),
            "share": weight.flatten(-2),
        }

    def update(
        self,
        forecast: Tensor,
        truth: Tensor,
        mask: Tensor | None = None,
        climatology: Tensor | None = None,
        series: Tensor | None = None,
    ) -> None:
        """Add samples: as ``Evaluator.update``; ``series`` is (B,K,*E) or broadcastable to it."""
        self.add(self.samples(forecast, truth, mask, climatology, series))

    def slopes(self, means: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """beta of forecast and truth without the intercept, (*E,K,H*W)."""
        size = self.regressors + 1
        gram = means["gram"].unflatten(-1, (size, size, -1)).movedim(-1, -3)
        found = []
        for name in ("forecast_moments", "truth_moments"):
            moments = means[name].unflatten(-1, (size, -1)).movedim(-1, -2)
            found.append(coefficients(gram, moments)[..., 1:].movedim(-1, -2))
        return found[0], found[1]

    def mapped(self, field: Tensor) -> Tensor:
        """(...,H*W) to (...,H,W)."""
        rows = self.area.shape[0]
        return field.unflatten(-1, (rows, -1))

    def _design(self, series: Tensor | None, truth: Tensor) -> Tensor:
        """(B,1+K,*E) float64: one, and the series."""
        name = type(self).__name__
        if series is None:
            raise GapzooError(f"{name} needs series=..., its (B,{self.regressors}) regressors")
        if series.ndim < 2 or tuple(series.shape[:2]) != (len(truth), self.regressors):
            raise GapzooError(
                f"{name} was given series {tuple(series.shape)}; it must be "
                f"({len(truth)},{self.regressors}) and the kept axes"
            )
        if not bool(torch.isfinite(series).all()):
            raise GapzooError(f"{name}: the series is not finite; drop the samples without one")
        front, kept = series.shape[:2], truth.shape[1:-2]
        z = series.double().reshape(*series.shape, *[1] * (len(kept) + 2 - series.ndim))
        z = z.to(truth.device).expand(*front, *kept)
        return torch.cat([torch.ones_like(z[:, :1]), z], 1)


@EVALUATORS.register("enso_regression")
class IndexRegression(Regression):
    """Slopes on an index, (*E,2,H,W): forecast, truth; units of the variable per unit of it."""

    series = "index"
    bins = ("source", "latitude", "longitude")
    labels: ClassVar = {"source": ("forecast", "truth")}

    def finish(self, means: Mapping[str, Tensor]) -> Tensor:
        """Maps of the slope."""
        return self.mapped(torch.cat(self.slopes(means), -2))


@EVALUATORS.register("enso_pattern")
class IndexPattern(Regression):
    """Pattern correlation of the forecast's and the truth's slopes on an index, -1 to 1."""

    series = "index"

    def finish(self, means: Mapping[str, Tensor]) -> Tensor:
        """Area-weighted uncentred correlation over the points that ever count."""
        f, o = (s[..., 0, :] for s in self.slopes(means))
        ff, oo, fo = (_area_mean(x, means["share"]) for x in (f * f, o * o, f * o))
        return fo / (ff * oo).sqrt()


@EVALUATORS.register("annual_cycle")
class AnnualCycle(Regression):
    """Annual harmonic, (*E,2,2,H,W): of forecast and truth, its amplitude and day of maximum."""

    series = "season"
    regressors = 2
    bins = ("source", "harmonic", "latitude", "longitude")
    labels: ClassVar = {
        "source": ("forecast", "truth"),
        "harmonic": ("amplitude", "day_of_maximum"),
    }

    def finish(self, means: Mapping[str, Tensor]) -> Tensor:
        """Maps of amplitude and phase."""
        parts = [amplitude_and_phase(s[..., 0, :], s[..., 1, :]) for s in self.slopes(means)]
        found = torch.stack([torch.stack(pair, -2) for pair in parts], -3)
        return self.mapped(found)


@EVALUATORS.register("annual_cycle_error")
class AnnualCycleError(Regression):
    """Error of the annual harmonic over its size in the truth; 0 is right in size and phase."""

    series = "season"
    regressors = 2

    def finish(self, means: Mapping[str, Tensor]) -> Tensor:
        """Root of the ratio of the area means."""
        f, o = self.slopes(means)
        off, size = ((x * x).sum(-2) for x in (f - o, o))
        return (_area_mean(off, means["share"]) / _area_mean(size, means["share"])).sqrt()


def _area_mean(field: Tensor, share: Tensor) -> Tensor:
    """Weighted over points; those of no weight are left out."""
    total = torch.where(share > 0, field * share, 0).sum(-1)
    return total / share.sum(-1)
