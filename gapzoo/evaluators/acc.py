"""Anomaly correlation coefficient.

    f = x_bar - c,  o = y - c,  c the climatology at the valid time
    ACC = <f o> / sqrt(<f f> <o o>)

``order="samples"`` takes the ratio for each sample over the area, then the mean over samples (the
definition of WeatherBench 2, Rasp et al. 2024, eq. 8, and of WMO exchanges); ``order="pooled"``
averages products over samples and area, then takes the ratio once (WeatherBench-X). With
``centred=True`` the area mean (pooled: the mean over samples too) is taken from f and o first.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor

from gapzoo.core import GapzooError, nearest
from gapzoo.evaluators import EVALUATORS
from gapzoo.evaluators.base import Evaluator, Sums, means_of
from gapzoo.evaluators.error import mean_error

Order = Literal["samples", "pooled"]


def anomaly_products(forecast: Tensor, truth: Tensor, climatology: Tensor) -> Sums:
    """f, o and their products at each point, (B,*E,H,W)."""
    f, o = mean_error(forecast, climatology), truth - climatology
    return {"f": f, "o": o, "ff": f * f, "oo": o * o, "fo": f * o}


def correlation(means: Mapping[str, Tensor], centred: bool) -> Tensor:
    """ACC from the means of f, o, ff, oo, fo."""
    shift = 1.0 if centred else 0.0
    cov = means["fo"] - shift * means["f"] * means["o"]
    var_f = means["ff"] - shift * means["f"].square()
    var_o = means["oo"] - shift * means["o"].square()
    return cov / (var_f * var_o).sqrt()


@EVALUATORS.register("acc")
class ACC(Evaluator):
    """Anomaly correlation of the ensemble mean, -1 to 1.

    Args:
        centred: take the mean anomaly away first.
        order: ``samples`` or ``pooled``, see the module.
    """

    statistics: ClassVar[tuple[str, ...]] = ("f", "o", "ff", "oo", "fo", "acc")
    needs_climatology = True

    def __init__(
        self,
        area_weights: Any,
        *,
        region: Any = None,
        centred: bool = False,
        order: Order = "samples",
    ) -> None:
        super().__init__(area_weights, region=region)
        if order not in get_args(Order):
            raise GapzooError(f"no order of averaging '{order}'; {nearest(order, get_args(Order))}")
        self.centred, self.order = centred, order

    def gathered(self, fields: Sums, truth: Tensor, weight: Tensor) -> Sums:
        """Weighted sums of the products, and the ratio of each sample times its weight."""
        found = super().gathered(fields, truth, weight)
        by_sample = correlation(means_of(found), self.centred)
        empty = found["weight"] == 0
        return {**found, "acc": torch.where(empty, 0, by_sample) * found["weight"]}

    def fields(self, forecast: Tensor, truth: Tensor, climatology: Tensor | None) -> Sums:
        """Anomalies and their products."""
        assert climatology is not None
        return anomaly_products(forecast, truth, climatology)

    def finish(self, means: Mapping[str, Tensor]) -> Tensor:
        """The mean of ratios or the ratio of means."""
        return means["acc"] if self.order == "samples" else correlation(means, self.centred)
