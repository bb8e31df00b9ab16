"""Brier score and reliability of the event that a threshold is reached.

    o = [y >= c],  p = 1/M #{m : x_m >= c}
    Brier = <(p - o)^2 - p (1 - p) / (M - 1)>   (fair, Ferro 2014)
    Brier = <(p - o)^2>                         (biased, Brier 1950)

Reliability (Murphy & Winkler 1977): cases are put in bins of p; each bin has the mean of p, the
observed frequency of the event and its share of all cases.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from gapzoo.core import GapzooError
from gapzoo.evaluators import EVALUATORS
from gapzoo.evaluators.base import Evaluator, Sums, area_sum, total_weight
from gapzoo.evaluators.crps import Estimator, check_estimator


def brier(p: Tensor, o: Tensor, members: int, estimator: Estimator = "fair") -> Tensor:
    """Brier score at each point from the share p of members and the event o (bool)."""
    score = (p - o.to(p.dtype)).square()
    if estimator == "fair" and members > 1:
        score = score - p * (1 - p) / (members - 1)
    return score


@EVALUATORS.register("brier")
class Brier(Evaluator):
    """Brier score by threshold, (*E,T); 0 is perfect.

    Args:
        thresholds: T values in units of the variable; the event is a value at or above one.
        estimator: ``fair`` (the default) or ``biased``.
    """

    statistics: ClassVar[tuple[str, ...]] = ("brier",)
    counts_members = True
    bins: ClassVar[tuple[str, ...]] = ("threshold",)

    def __init__(
        self,
        area_weights: Any,
        *,
        thresholds: Sequence[float],
        region: Any = None,
        estimator: Estimator = "fair",
    ) -> None:
        super().__init__(area_weights, region=region)
        check_estimator(estimator)
        if not len(thresholds):
            raise GapzooError("thresholds is empty; give at least one value")
        self.thresholds, self.estimator = [float(c) for c in thresholds], estimator

    @property
    def axes(self) -> Mapping[str, Sequence[Any]]:
        """The thresholds among them."""
        return {**self.labels, "threshold": self.thresholds}

    def fields(self, forecast: Tensor, truth: Tensor, climatology: Tensor | None) -> Sums:
        """Fields of each threshold, (B,*E,T,H,W)."""
        each = [
            self.event_fields((forecast >= c).float().mean(1), truth >= c, forecast.shape[1])
            for c in self.thresholds
        ]
        return {name: torch.stack([e[name] for e in each], -3) for name in each[0]}

    def event_fields(self, p: Tensor, o: Tensor, members: int) -> Sums:
        """Fields of one event, (B,*E,H,W), from the share p of members and the event o (bool)."""
        return {"brier": brier(p, o, members, self.estimator)}

    def gathered(self, fields: Sums, truth: Tensor, weight: Tensor) -> Sums:
        """Weighted sums by threshold."""
        behind = weight[..., None, :, :] if weight.ndim > 2 else weight
        return {"weight": total_weight(weight, truth), **self.added(fields, behind)}

    def added(self, fields: Sums, weight: Tensor) -> Sums:
        """Sums over area, (B,*E,T) or (B,*E,T,K); the weight fits the fields."""
        return {name: area_sum(field, weight) for name, field in fields.items()}


@EVALUATORS.register("reliability")
class Reliability(Brier):
    """Reliability table (*E,T,10,3): mean forecast probability, observed frequency, share.

    Bins are tenths of probability, the last one closed. An empty bin has NaN, NaN, 0.
    """

    statistics: ClassVar[tuple[str, ...]] = ("count", "probability", "event")
    bins: ClassVar[tuple[str, ...]] = ("threshold", "probability_bin", "reliability")
    labels: ClassVar = {"reliability": ("probability", "frequency", "share")}
    size = 10

    def event_fields(self, p: Tensor, o: Tensor, members: int) -> Sums:
        """Forecast probability and event."""
        return {"probability": p, "event": o}

    def added(self, fields: Sums, weight: Tensor) -> Sums:
        """Weight, forecast probability and events by bin: (B,*E,T,10) each."""
        flat = fields["probability"].double().flatten(-2)
        share = weight.expand(fields["event"].shape).flatten(-2)
        which = (flat * self.size + 1e-6).long().clamp(max=self.size - 1)

        def binned(value: Tensor) -> Tensor:
            return value.new_zeros((*flat.shape[:-1], self.size)).scatter_add_(-1, which, value)

        events = share * fields["event"].flatten(-2)
        return {
            "count": binned(share),
            "probability": binned(share * flat),
            "event": binned(events),
        }

    def finish(self, means: Mapping[str, Tensor]) -> Tensor:
        """Means within each bin."""
        count = means["count"]
        return torch.stack([means["probability"] / count, means["event"] / count, count], -1)
