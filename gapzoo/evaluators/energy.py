"""Energy score: the CRPS of whole fields.

    ||d||^2 = sum_p w_p d_p^2 / sum_p w_p
    ES = 1/M sum_i ||x_i - y|| - 1/(2 M N) sum_ij ||x_i - x_j||

with N = M - 1 (fair) or M (biased); Gneiting & Raftery 2007, eq. 22, with the area-weighted norm.
All distances come from the Gram matrix of x_i - y, in float64.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gapzoo.evaluators import EVALUATORS
from gapzoo.evaluators.base import Evaluator, Sums, total_weight
from gapzoo.evaluators.crps import Estimator, check_estimator


def energy_score(
    forecast: Tensor, truth: Tensor, weight: Tensor, estimator: Estimator = "fair"
) -> Tensor:
    """ES of each sample and kept axis, (B,*E) float64, in units of the variable.

    Args:
        forecast: (B,M,*E,H,W); ``truth``: (B,*E,H,W).
        weight: (H,W) or (B,*E,H,W), >= 0; points of weight 0 are left out.
        estimator: ``fair`` or ``biased``.
    """
    check_estimator(estimator)
    weight = weight.expand(truth.shape)
    return torch.stack([_score(*xyw, estimator) for xyw in zip(forecast, truth, weight)])  # noqa: B905


def _score(x: Tensor, y: Tensor, weight: Tensor, estimator: Estimator) -> Tensor:
    """(M,*E,H,W), (*E,H,W), (*E,H,W) to (*E)."""
    members = x.shape[0]
    root = (weight / weight.sum((-2, -1), keepdim=True)).sqrt()
    d = torch.where(weight > 0, (x.double() - y.double()) * root, 0).flatten(-2).movedim(0, -2)
    gram = d @ d.mT
    square = gram.diagonal(dim1=-2, dim2=-1)
    error = square.sqrt().mean(-1)
    apart = (square[..., :, None] + square[..., None, :] - 2 * gram).clamp(min=0).sqrt()
    pairs = members * (members - 1 if estimator == "fair" else members)
    return error - apart.sum((-2, -1)) / (2 * max(pairs, 1))


@EVALUATORS.register("energy_score")
class EnergyScore(Evaluator):
    """Energy score over the area; the RMSE of the field for one member.

    Args:
        estimator: ``fair`` (the default) or ``biased``.
    """

    statistics = ("energy_score",)

    def __init__(
        self, area_weights: Any, *, region: Any = None, estimator: Estimator = "fair"
    ) -> None:
        super().__init__(area_weights, region=region)
        check_estimator(estimator)
        self.estimator = estimator

    def sums(
        self, forecast: Tensor, truth: Tensor, weight: Tensor, climatology: Tensor | None
    ) -> Sums:
        """Score of each sample times the weight it brings."""
        total = total_weight(weight, truth)
        score = energy_score(forecast, truth, weight, self.estimator)
        return {"weight": total, "energy_score": torch.where(total > 0, score * total, 0)}
