"""Maps of scores: the mean over samples alone, point by point.

    score_p = finish( sum_b m_bp s_k(x_b, y_b)_p / sum_b m_bp ),  NaN where no sample counts

with the statistics s_k and the function ``finish`` of the score of the same name without ``_map``
(``base``). The correlation is the pooled one: over samples at each point, about the climatology,
or about the samples' own mean as well with ``centred`` (Wilks 2019, eq. 9.95).
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from gapzoo.evaluators import EVALUATORS
from gapzoo.evaluators.acc import ACC
from gapzoo.evaluators.base import Evaluator, Sums
from gapzoo.evaluators.crps import CRPS
from gapzoo.evaluators.error import RMSE, Bias


class ByPoint(Evaluator):
    """Turns a score of fields into its map, (*E,H,W); put it before the score among the bases."""

    bins: ClassVar[tuple[str, ...]] = ("latitude", "longitude")

    def sums(
        self, forecast: Tensor, truth: Tensor, weight: Tensor, climatology: Tensor | None
    ) -> Sums:
        """Each sample's statistics and whether a point counts, (B,*E,H,W)."""
        counts = (weight > 0).expand(truth.shape)
        fields = self.fields(forecast, truth, climatology)
        found = {name: torch.where(counts, field, 0).double() for name, field in fields.items()}
        return {"weight": counts.double(), **found}


@EVALUATORS.register("rmse_map")
class RMSEMap(ByPoint, RMSE):
    """Root-mean-square error of the ensemble mean at each point; units of the variable."""


@EVALUATORS.register("bias_map")
class BiasMap(ByPoint, Bias):
    """Mean error of the ensemble mean at each point; units of the variable."""


@EVALUATORS.register("crps_map")
class CRPSMap(ByPoint, CRPS):
    """Mean CRPS at each point; units of the variable."""


@EVALUATORS.register("acc_map")
class ACCMap(ByPoint, ACC):
    """Correlation of anomalies over samples at each point, -1 to 1.

    Args:
        centred: take the samples' mean anomaly away first.
    """

    statistics: ClassVar[tuple[str, ...]] = ("f", "o", "ff", "oo", "fo")

    def __init__(self, area_weights: Any, *, region: Any = None, centred: bool = False) -> None:
        super().__init__(area_weights, region=region, centred=centred, order="pooled")
