"""Leading modes of variability: annular modes and a sector's mode such as the NAO.

With a_b the anomalies of a sample at K points (of a region, or its zonal means), w their areas,
C = <a a^T> - <a><a>^T over samples (and members) and D = diag(w),

    D^1/2 C D^1/2 e = lambda e,  lambda the greatest,   share = lambda / trace
    pattern p = sqrt(lambda) D^-1/2 e,   index t_b = sum w p a_b / sum w p^2   (of variance 1)

(North et al. 1982; Thompson & Wallace 2000: annular modes from the zonal mean or the hemisphere
poleward of 20 degrees; Hurrell 1995: the NAO from mean sea level pressure in 20-80 N, 90 W-40 E).
The positive phase has low values in the row nearest the pole. Only the sums of a and a a^T of
forecast and truth and their cross product are stored. With e_o the truth's mode, the scores are

    share of forecast and truth;  pattern correlation |e_f . e_o|
    variance ratio  e_o^T C_ff e_o / e_o^T C_oo e_o   (C weighted by D as above)
    index correlation  e_o^T C_fo e_o / sqrt(e_o^T C_ff e_o  e_o^T C_oo e_o)   of single members
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from gapzoo.core import GapzooError
from gapzoo.evaluators import EVALUATORS
from gapzoo.evaluators.base import Evaluator, Sums

MOST_POINTS = 4096
"""Points of a region; a covariance of more would take over a tenth of a gigabyte."""
PRODUCTS = ("ff", "fo", "oo")


def leading(covariance: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Leading mode of a covariance (...,K,K) of points of areas (K,).

    Returns:
        Pattern p (...,K), for an index of variance 1, of either sign; its share (...). NaN where
        the covariance is not finite.
    """
    root = weight.sqrt()
    scaled = covariance * root[:, None] * root
    bad = ~torch.isfinite(scaled).all(-1).all(-1)
    values, vectors = torch.linalg.eigh(torch.where(bad[..., None, None], 0, scaled))
    values = values.masked_fill(bad[..., None], torch.nan)
    inverse = torch.where(root > 0, 1 / root, 0)
    pattern = vectors[..., -1] * inverse * values[..., -1:].clamp(min=0).sqrt()
    return pattern, values[..., -1] / values.sum(-1)


def project(anomalies: Tensor, pattern: Tensor, weight: Tensor) -> Tensor:
    """Index (...) of anomalies (...,K) on a pattern (K,) from ``leading``."""
    return anomalies @ (weight * pattern) / (weight * pattern.square()).sum()


@EVALUATORS.register("leading_mode")
class LeadingMode(Evaluator):
    """Scores of a region's leading mode, (*E,5); see the module.

    Anomalies are from ``climatology`` where it is given, and always from the samples' mean. Give
    a region (``north_atlantic_sector``, ``northern_extratropics``).
    """

    statistics: ClassVar[tuple[str, ...]] = ("cases", "pairs", "f", "o", *PRODUCTS)
    bins: ClassVar[tuple[str, ...]] = ("mode_score",)
    labels: ClassVar = {
        "source": ("forecast", "truth"),
        "mode_score": (
            "forecast_share",
            "truth_share",
            "pattern_correlation",
            "variance_ratio",
            "index_correlation",
        ),
    }
    uses_climatology = True
    zonal_mean: ClassVar[bool] = False
    rows: Tensor

    def __init__(self, area_weights: Any, *, region: Any = None) -> None:
        super().__init__(area_weights, region=region)
        rows = torch.as_tensor(np.asarray(area_weights), dtype=torch.float64)
        self.register_buffer("rows", rows, persistent=False)

    def sums(
        self, forecast: Tensor, truth: Tensor, weight: Tensor, climatology: Tensor | None
    ) -> Sums:
        """Powers and products of the points' anomalies, (B,*E,K) and (B,*E,K*K)."""
        climate = torch.zeros(1, dtype=truth.dtype) if climatology is None else climatology
        o, count = self.points(truth - climate, weight)
        ahead = climate if climatology is None else climate[:, None]
        f = self.points((forecast - ahead).movedim(1, -3), weight, members=True)[0]
        mean = f.mean(-2)
        return {
            "weight": weight.new_ones(truth.shape[:-2]),
            "cases": count,
            "pairs": _outer(count, count),
            "f": mean,
            "o": o,
            "ff": (f.mT @ f / f.shape[-2]).flatten(-2),
            "fo": _outer(mean, o),
            "oo": _outer(o, o),
        }

    def points(self, field: Tensor, weight: Tensor, members: bool = False) -> tuple[Tensor, Tensor]:
        """(...,H,W) to the points' values (...,K) and whether they count, float64."""
        inside = self.area.expand(field.shape[-2:]).flatten() > 0
        if int(inside.sum()) > MOST_POINTS and not self.zonal_mean:
            raise GapzooError(
                f"a leading mode of {int(inside.sum())} points; give a smaller region or a coarser "
                f"grid, of {MOST_POINTS} at most, or take annular_mode"
            )
        share = (weight[..., None, :, :] if members and weight.ndim > 2 else weight).expand(
            field.shape
        )
        value = torch.where(share > 0, field.double(), 0)
        if self.zonal_mean:
            inside = inside.reshape(field.shape[-2:]).any(-1)
            total = share.sum(-1)
            value = torch.where(total > 0, (value * share).sum(-1) / total, 0)
            return value[..., inside], (total > 0).double()[..., inside]
        return value.flatten(-2)[..., inside], (share > 0).double().flatten(-2)[..., inside]

    def covariance(self, means: Mapping[str, Tensor], name: str) -> Tensor:
        """(*E,K,K) of ``ff``, ``fo`` or ``oo``; 0 for points that never count."""
        size = means["cases"].shape[-1]
        pairs, cases = means["pairs"].unflatten(-1, (size, size)), means["cases"]
        product = means[name].unflatten(-1, (size, size))
        first, second = (torch.where(cases > 0, means[n] / cases, 0) for n in (name[0], name[1]))
        found = product / pairs - first[..., :, None] * second[..., None, :]
        return torch.where(pairs > 0, found, 0)

    def patterns(self, means: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Patterns of forecast and truth (*E,K), alike in sign, and their shares (*E)."""
        weight = self.point_areas(means)
        (p, share_f), (q, share_o) = (
            leading(self.covariance(means, name), weight) for name in ("ff", "oo")
        )
        q = q * _sign(-(q * self.nearest_the_pole(means)).sum(-1))[..., None]
        p = p * _sign((p * q * weight).sum(-1))[..., None]
        return p, q, share_f, share_o

    def finish(self, means: Mapping[str, Tensor]) -> Tensor:
        """The five scores."""
        weight = self.point_areas(means)
        p, q, share_f, share_o = self.patterns(means)
        norm = [(x.square() * weight).sum(-1).sqrt() for x in (p, q)]
        alike = (p * q * weight).sum(-1) / (norm[0] * norm[1])
        side = q * weight

        def along(name: str) -> Tensor:
            return torch.einsum("...k,...kl,...l->...", side, self.covariance(means, name), side)

        ff, fo, oo = (along(name) for name in PRODUCTS)
        scores = [share_f, share_o, alike, ff / oo, fo / (ff * oo).sqrt()]
        return torch.stack(scores, -1)

    def layout(self, size: int) -> Tensor:
        """Areas (H,W) behind K points; without a region (H,1) are kept until the width is known."""
        rows = int((self.area > 0).any(-1).sum())
        width = self.area.shape[1] if self.area.shape[1] > 1 else size // rows
        return self.area if self.zonal_mean else self.area.expand(-1, width)

    def point_areas(self, means: Mapping[str, Tensor]) -> Tensor:
        """(K,) areas of the points, or of their rows."""
        area = self.layout(means["cases"].shape[-1])
        return area.sum(-1)[(area > 0).any(-1)] if self.zonal_mean else area[area > 0]

    def nearest_the_pole(self, means: Mapping[str, Tensor]) -> Tensor:
        """(*E,K) one for the points of the row of least area that counts, zero elsewhere."""
        area, cases = self.layout(means["cases"].shape[-1]), means["cases"]
        inside = (area > 0).any(-1, keepdim=True) if self.zonal_mean else area > 0
        row = torch.arange(len(area), device=area.device)[:, None].expand(inside.shape)[inside]
        size = self.rows[row].expand(cases.shape).masked_fill(cases == 0, torch.inf)
        first = row[size.argmin(-1)]
        return (row == first[..., None]).to(area.dtype)


@EVALUATORS.register("annular_mode")
class AnnularMode(LeadingMode):
    """Scores of the leading mode of the zonal mean over a region, (*E,5); see the module."""

    zonal_mean = True


@EVALUATORS.register("leading_mode_pattern")
class LeadingModePattern(LeadingMode):
    """Leading mode of forecast and truth, (*E,2,H,W), for an index of variance 1; NaN outside."""

    bins: ClassVar[tuple[str, ...]] = ("source", "latitude", "longitude")

    def finish(self, means: Mapping[str, Tensor]) -> Tensor:
        """The patterns on the grid."""
        area = self.layout(means["cases"].shape[-1])
        return _scattered(torch.stack(self.patterns(means)[:2], -2), means["cases"], area > 0)


@EVALUATORS.register("annular_mode_pattern")
class AnnularModePattern(AnnularMode):
    """Leading mode of the zonal mean in forecast and truth, (*E,2,H); NaN outside."""

    bins: ClassVar[tuple[str, ...]] = ("source", "latitude")

    def finish(self, means: Mapping[str, Tensor]) -> Tensor:
        """The patterns by latitude."""
        inside = (self.area > 0).any(-1)
        return _scattered(torch.stack(self.patterns(means)[:2], -2), means["cases"], inside)


def _scattered(both: Tensor, cases: Tensor, inside: Tensor) -> Tensor:
    """(*E,2,K) to the shape of ``inside``, NaN where a point is outside or never counts."""
    out = both.new_full((*both.shape[:-1], *inside.shape), torch.nan)
    out[..., inside] = torch.where((cases > 0)[..., None, :], both, torch.nan)
    return out


def _outer(first: Tensor, second: Tensor) -> Tensor:
    return (first[..., :, None] * second[..., None, :]).flatten(-2)


def _sign(value: Tensor) -> Tensor:
    return torch.where(value < 0, -1.0, 1.0).to(value.dtype)
