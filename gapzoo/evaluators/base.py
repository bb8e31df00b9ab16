"""What every metric shares: statistics are summed, and a function of their means is the score.

    S_k = sum over samples b and points p of  w_p m_bp s_k(x_b, y_b)_p        (statistics)
    W   = sum over samples b and points p of  w_p m_bp                        (weight)
    score = finish(S_1 / W, S_2 / W, ...)

with w_p = cell area times region weight, m_bp the mask, x the forecast (B,M,*E,H,W) and y the
truth (B,*E,H,W): B samples (initial times), M members, *E kept axes (lead, channel, ...), H
latitude, W longitude. Only S and W are stored, in float64, so a metric streams over chunks, merges
with another and reduces over processes to exactly the value of the whole. Extremes are kept the
same way, by maximum in place of sum.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric

from gapzoo.core import GapzooError

Sums = dict[str, Tensor]
"""Name of a statistic to its weighted sums (B,*E) or (B,*E,K); ``weight`` (B,*E) is among them."""


class Evaluator(Metric):
    """Base of all metrics. A subclass names its statistics and overrides ``fields`` and ``finish``.

    Args:
        area_weights: (H,) cell areas by latitude, as ``Grid.area_weights`` (any scale).
        region: (H,W) or (H,1) weights of a region (see ``regions``); None is the globe.
    """

    full_state_update = False
    statistics: ClassVar[tuple[str, ...]] = ()
    maxima: ClassVar[tuple[str, ...]] = ()
    """Statistics that are reduced by maximum over samples, and not weighted."""
    needs_climatology: ClassVar[bool] = False
    uses_climatology: ClassVar[bool] = False
    """Whether a climatology is used where there is one."""
    climatology_axes: ClassVar[int] = 0
    """Axes of the climatology between B and *E, such as the edges of categories."""
    least_members: ClassVar[int] = 1
    counts_members: ClassVar[bool] = False
    """Whether members are only compared with something, so that NaN would count as a value."""
    bins: ClassVar[tuple[str, ...]] = ()
    """Names of the axes that the metric adds behind *E, if any."""
    along_lead: ClassVar[bool] = False
    """Whether the first kept axis, the lead, is used up."""
    needs_channels: ClassVar[bool] = False
    """Whether the last kept axis must be a state's channels."""
    series: ClassVar[str] = ""
    """What series a regression is on: ``index`` or ``season``; see ``regression``."""
    labels: ClassVar[Mapping[str, Sequence[Any]]] = {}
    """Coordinates of the axes named in ``bins``, where these have names of their own."""
    takes: ClassVar[tuple[str, ...]] = ()
    """Arguments that ``gapzoo.evaluate`` fills in: ``leads`` (days) or ``channels``."""

    area: Tensor

    def __init__(self, area_weights: Any, *, region: Any = None) -> None:
        super().__init__()
        self.register_buffer("area", point_weights(area_weights, region), persistent=False)
        for name in ("weight", *self.statistics):
            zero = torch.zeros((), dtype=torch.float64)
            self.add_state(name, default=zero, dist_reduce_fx="sum")
        for name in self.maxima:
            least = torch.tensor(-torch.inf, dtype=torch.float64)
            self.add_state(name, default=least, dist_reduce_fx="max")

    @property
    def axes(self) -> Mapping[str, Sequence[Any]]:
        """Coordinates of the axes behind *E that have any."""
        return self.labels

    def fields(self, forecast: Tensor, truth: Tensor, climatology: Tensor | None) -> Sums:
        """What does not depend on the region: statistics at each point, names to (B,*E,H,W)."""
        raise NotImplementedError

    def gathered(self, fields: Sums, truth: Tensor, weight: Tensor) -> Sums:
        """``fields`` summed over area; a metric whose fields are no such points overrides it."""
        return gathered(fields, truth, weight)

    def finish(self, means: Mapping[str, Tensor]) -> Tensor:
        """The score from the statistics' means, each (*E) or (*E,K)."""
        return means[self.statistics[0]]

    def sums(
        self, forecast: Tensor, truth: Tensor, weight: Tensor, climatology: Tensor | None
    ) -> Sums:
        """Statistics summed over area by sample; ``weight`` is (H,W) or (B,*E,H,W)."""
        return self.sums_by_region(forecast, truth, [weight], climatology)[0]

    def sums_by_region(
        self,
        forecast: Tensor,
        truth: Tensor,
        weights: Sequence[Tensor],
        climatology: Tensor | None,
    ) -> list[Sums]:
        """``sums`` for each of several weights; the fields are found once."""
        fields = self.fields(forecast, truth, climatology)
        return [self.gathered(fields, truth, weight) for weight in weights]

    @torch.no_grad()
    def samples(
        self,
        forecast: Tensor,
        truth: Tensor,
        mask: Tensor | None = None,
        climatology: Tensor | None = None,
    ) -> Sums:
        """The weighted sums of each sample, (B,*E): what ``update`` adds up, for significance.

        Raises:
            GapzooError: where shapes disagree, or truth or climatology are not finite at a point
                that counts.
        """
        return samples_by_region([self], forecast, truth, mask, climatology)[0]

    def checked(
        self, forecast: Tensor, truth: Tensor, mask: Tensor | None, climatology: Tensor | None
    ) -> Tensor:
        """Weights of the points that count, (H,W) or (B,*E,H,W), once all input is sound."""
        check_shapes(forecast, truth)
        self._require(forecast, truth, climatology)
        weight = masked_weights(self.area.to(truth.device), truth, mask)
        check_finite("truth", truth, weight)
        if climatology is not None and (self.needs_climatology or self.uses_climatology):
            behind = weight[:, None] if self.climatology_axes and weight.ndim > 2 else weight
            check_finite("climatology", climatology, behind)
        return weight

    def update(
        self,
        forecast: Tensor,
        truth: Tensor,
        mask: Tensor | None = None,
        climatology: Tensor | None = None,
    ) -> None:
        """Add samples.

        Args:
            forecast: (B,M,*E,H,W); one member for a deterministic forecast.
            truth: (B,*E,H,W).
            mask: broadcastable to truth; True where a point counts. None: all do.
            climatology: (B,*E,H,W), where the metric needs one.
        """
        self.add(self.samples(forecast, truth, mask, climatology))

    def add(self, sums: Sums) -> None:
        """Add the sums of samples, as ``samples`` gives them."""
        for name, value in self.total(sums).items():
            stored: Tensor = getattr(self, name)
            setattr(self, name, self.joined(name, stored, value.to(stored.device)))

    def total(self, sums: Sums) -> Sums:
        """Sums (or maxima) over samples: (B,*E) to (*E)."""
        return {n: v.amax(0) if n in self.maxima else v.sum(0) for n, v in sums.items()}

    def joined(self, name: str, first: Tensor, second: Tensor) -> Tensor:
        """Two totals of a statistic as one."""
        return torch.maximum(first, second) if name in self.maxima else first + second

    def score(self, totals: Mapping[str, Tensor]) -> Tensor:
        """The score from totals over samples, each (*E) or (*E,K)."""
        greatest = {name: totals[name] for name in self.maxima}
        means = means_of({n: v for n, v in totals.items() if n not in self.maxima})
        return self.finish({**means, **greatest})

    def compute(self) -> Tensor:
        """The score, float64, shaped as the kept axes *E (and the metric's own bins behind).

        torchmetrics drops the axes of a result of one number.
        """
        names = ("weight", *self.statistics, *self.maxima)
        return self.score({name: getattr(self, name) for name in names})

    def _require(self, forecast: Tensor, truth: Tensor, climatology: Tensor | None) -> None:
        name = type(self).__name__
        if self.needs_climatology and climatology is None:
            raise GapzooError(f"{name} needs climatology=...; pass it to update()")
        if climatology is not None and (self.needs_climatology or self.uses_climatology):
            check_climatology(climatology, truth, self.climatology_axes)
        if forecast.shape[1] < self.least_members:
            raise GapzooError(
                f"{name} needs at least {self.least_members} members, the forecast has "
                f"{forecast.shape[1]}; draw more or drop this metric"
            )


@torch.no_grad()
def samples_by_region(
    evaluators: Sequence[Evaluator],
    forecast: Tensor,
    truth: Tensor,
    mask: Tensor | None = None,
    climatology: Tensor | None = None,
    **given: Tensor | None,
) -> list[Sums]:
    """``samples`` of one metric in several regions; what they share is found once.

    Args:
        evaluators: alike but for their regions.
        given: more that ``samples`` takes, as ``series``; the other arguments as there.
    """
    first = evaluators[0]
    if given:
        return [e.samples(forecast, truth, mask, climatology, **given) for e in evaluators]
    weights = [e.checked(forecast, truth, mask, climatology) for e in evaluators]
    if type(first).sums is Evaluator.sums:
        found = first.sums_by_region(forecast, truth, weights, climatology)
    else:
        pairs = zip(evaluators, weights, strict=True)
        found = [e.sums(forecast, truth, w, climatology) for e, w in pairs]
    if not first.counts_members:
        return found
    bad = (~torch.isfinite(forecast)).any(1)
    return [poisoned(s, bad, w) for s, w in zip(found, weights, strict=True)]


def gathered(fields: Sums, truth: Tensor, weight: Tensor) -> Sums:
    """Statistics at points (B,*E,H,W) summed over area, with the weight they bring, (B,*E)."""
    found = {name: area_sum(field, weight) for name, field in fields.items()}
    return {"weight": total_weight(weight, truth), **found}


def means_of(sums: Mapping[str, Tensor]) -> Sums:
    """Sums over their weight; NaN where no point counted."""
    weight = sums["weight"]

    def over(value: Tensor) -> Tensor:
        return value / weight.reshape(weight.shape + (1,) * (value.ndim - weight.ndim))

    return {name: over(value) for name, value in sums.items() if name != "weight"}


def area_sum(field: Tensor, weight: Tensor) -> Tensor:
    """Sum of field (...,H,W) over area in float64, (...); points of weight 0 are left out."""
    if bool((weight == 0).any()):
        field = torch.where(weight > 0, field, 0)
    if weight.ndim == 2:
        return field.flatten(-2).double() @ weight.flatten()
    return (field.double() * weight).sum((-2, -1))


def poisoned(sums: Sums, nonfinite: Tensor, weight: Tensor) -> Sums:
    """Statistics made NaN where a member is not finite (B,*E,H,W) at a point that counts."""
    bad = (nonfinite & (weight > 0)).any(-1).any(-1)

    def marked(value: Tensor) -> Tensor:
        where = bad.reshape(bad.shape + (1,) * (value.ndim - bad.ndim))
        return torch.where(where, torch.nan, value)

    return {name: value if name == "weight" else marked(value) for name, value in sums.items()}


def total_weight(weight: Tensor, truth: Tensor) -> Tensor:
    """Weight that each sample brings, (B,*E)."""
    return weight.sum((-2, -1)).expand(truth.shape[:-2])


def point_weights(area_weights: Any, region: Any = None) -> Tensor:
    """(H,W) or (H,1) float64 weights: cell area times region; raises where they do not fit."""
    area = torch.as_tensor(np.asarray(area_weights), dtype=torch.float64)
    if area.ndim != 1 or not bool((area > 0).all()):
        raise GapzooError("area_weights must be (H,) and positive; pass Grid.area_weights")
    if region is None:
        return area[:, None]
    share = torch.as_tensor(np.asarray(region), dtype=torch.float64)
    if share.ndim != 2 or share.shape[0] != len(area) or not bool((share >= 0).all()):
        raise GapzooError(
            f"region weights are {tuple(share.shape)}; they must be ({len(area)},W) and >= 0"
        )
    return area[:, None] * share


def masked_weights(area: Tensor, truth: Tensor, mask: Tensor | None) -> Tensor:
    """Weights of the points that count: (H,W), or (B,*E,H,W) with a mask."""
    if area.shape[0] != truth.shape[-2] or area.shape[1] not in (1, truth.shape[-1]):
        raise GapzooError(
            f"the metric's weights are for {tuple(area.shape)} latitudes and longitudes, the "
            f"truth has {tuple(truth.shape[-2:])}; build the metric with the truth's grid"
        )
    area = area.expand(truth.shape[-2:])
    if mask is None:
        return area.contiguous()
    if mask.dtype != torch.bool:
        raise GapzooError(f"mask is {mask.dtype}; pass a bool tensor, True where a point counts")
    try:
        return mask.to(truth.device).expand(truth.shape) * area
    except RuntimeError:
        raise GapzooError(
            f"mask {tuple(mask.shape)} does not broadcast to the truth {tuple(truth.shape)}"
        ) from None


def check_shapes(forecast: Tensor, truth: Tensor) -> None:
    """Refuse a forecast that is not (B,M,*E,H,W) for a truth (B,*E,H,W)."""
    fits = forecast.ndim == truth.ndim + 1 and truth.ndim >= 3
    if not fits or forecast.shape[:1] + forecast.shape[2:] != truth.shape:
        raise GapzooError(
            f"forecast {tuple(forecast.shape)} must be (B,M,*E,H,W) and truth "
            f"{tuple(truth.shape)} the same without the members M; add an axis of one member "
            "to a deterministic forecast"
        )


def check_climatology(climatology: Tensor, truth: Tensor, axes: int = 0) -> None:
    """Refuse a climatology that is not (B,*E,H,W), with ``axes`` more behind B."""
    shape = climatology.shape[:1] + climatology.shape[1 + axes :]
    if climatology.ndim != truth.ndim + axes or shape != truth.shape:
        raise GapzooError(
            f"climatology {tuple(climatology.shape)} does not fit the truth "
            f"{tuple(truth.shape)}; give it at the same valid times, axes and grid"
        )


def check_finite(what: str, field: Tensor, weight: Tensor) -> None:
    """Refuse NaN or infinity at points that count."""
    bad = ~torch.isfinite(field)
    if not bool(bad.any()):
        return
    count = int((bad & (weight > 0)).sum())
    if count:
        raise GapzooError(
            f"the {what} has {count} non-finite values among the points that count; pass a "
            "mask, such as torch.isfinite(truth), to leave them out"
        )
