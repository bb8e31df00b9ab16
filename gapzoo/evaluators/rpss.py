"""Ranked probability skill score of categories such as terciles.

    P_k = 1/M #{m : x_m < e_k},  O_k = [y < e_k],  k = 1..K (K = 2 edges: terciles)
    RPS  = < sum_k (P_k - O_k)^2 - P_k (1 - P_k) / (M - 1) >   (fair; without the last term: biased)
    RPSS = 1 - RPS / < sum_k (k/(K+1) - O_k)^2 >

(Epstein 1969; fair: Ferro 2014.) 0 is the skill of climatology, 1 a perfect forecast.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from gapzoo.evaluators import EVALUATORS
from gapzoo.evaluators.base import Evaluator, Sums
from gapzoo.evaluators.brier import brier
from gapzoo.evaluators.crps import Estimator, check_estimator


def ranked_probability(
    forecast: Tensor, truth: Tensor, edges: Tensor, estimator: Estimator = "fair"
) -> tuple[Tensor, Tensor]:
    """RPS of the ensemble and of climatology at each point, (B,*E,H,W).

    Args:
        forecast: (B,M,*E,H,W); ``truth``: (B,*E,H,W).
        edges: (B,K,*E,H,W), ascending along K: climatological quantiles k/(K+1).
        estimator: ``fair`` or ``biased``.
    """
    number, members = edges.shape[1], forecast.shape[1]
    score, climate = torch.zeros_like(truth), torch.zeros_like(truth)
    for k in range(number):
        below = truth < edges[:, k]
        p = (forecast < edges[:, k, None]).to(truth.dtype).mean(1)
        score += brier(p, below, members, estimator)
        climate += ((k + 1) / (number + 1) - below.to(truth.dtype)).square()
    return score, climate


@EVALUATORS.register("rpss")
class RPSS(Evaluator):
    """Ranked probability skill score; ``climatology`` holds the edges, (B,K,*E,H,W).

    Args:
        estimator: ``fair`` (the default) or ``biased``.
    """

    statistics = ("rps", "climate_rps")
    counts_members = True
    needs_climatology = True
    climatology_axes = 1

    def __init__(
        self, area_weights: Any, *, region: Any = None, estimator: Estimator = "fair"
    ) -> None:
        super().__init__(area_weights, region=region)
        check_estimator(estimator)
        self.estimator = estimator

    def fields(self, forecast: Tensor, truth: Tensor, climatology: Tensor | None) -> Sums:
        """RPS of forecast and climatology."""
        assert climatology is not None
        score, climate = ranked_probability(forecast, truth, climatology, self.estimator)
        return {"rps": score, "climate_rps": climate}

    def finish(self, means: Mapping[str, Tensor]) -> Tensor:
        """1 - RPS / RPS of climatology."""
        return 1 - means["rps"] / means["climate_rps"]
