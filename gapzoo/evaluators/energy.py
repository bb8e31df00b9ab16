"""Energy score: the CRPS of whole fields.

    ||d||^2 = sum_p w_p d_p^2 / sum_p w_p
    ES = 1/M sum_i ||x_i - y|| - 1/(2 M N) sum_ij ||x_i - x_j||

with N = M - 1 (fair) or M (biased); Gneiting & Raftery 2007, eq. 22, with the area-weighted norm.
All distances come from the Gram matrix of x_i - y, in float64; of several latitude bands, from the
Gram matrices of the rows, which are found once.
"""

from __future__ import annotations

from collections.abc import Sequence
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


def energy_score_of_bands(
    forecast: Tensor, truth: Tensor, rows: Tensor, estimator: Estimator = "fair"
) -> Tensor:
    """ES in each of R latitude bands, (R,B,*E) float64; arguments as ``energy_score``.

    Args:
        forecast: (B,M,*E,H,W); ``truth``: (B,*E,H,W).
        rows: (R,H), >= 0: the weight of a point in each row; rows of weight 0 are left out.
        estimator: ``fair`` or ``biased``.
    """
    check_estimator(estimator)
    x, y = forecast.movedim(1, -3).flatten(0, -4), truth.flatten(0, -3)
    share = rows / (rows.sum(-1, keepdim=True) * truth.shape[-1])
    grams = torch.stack([_band_grams(*pair, share) for pair in zip(x, y, strict=True)], 1)
    return _of_gram(grams, estimator).unflatten(1, truth.shape[:-2])


def _band_grams(x: Tensor, y: Tensor, share: Tensor) -> Tensor:
    """One field (M,H,W), (H,W) and shares (R,H) to (R,M,M)."""
    d = (x.double() - y.double()).movedim(0, 1)
    grams = (d @ d.mT).flatten(1)
    bands = [s[s > 0] @ grams[s > 0] for s in share]
    return torch.stack(bands).unflatten(1, (len(x), len(x)))


def _score(x: Tensor, y: Tensor, weight: Tensor, estimator: Estimator) -> Tensor:
    """(M,*E,H,W), (*E,H,W), (*E,H,W) to (*E)."""
    root = (weight / weight.sum((-2, -1), keepdim=True)).sqrt()
    d = torch.where(weight > 0, (x.double() - y.double()) * root, 0).flatten(-2).movedim(0, -2)
    return _of_gram(d @ d.mT, estimator)


def _of_gram(gram: Tensor, estimator: Estimator) -> Tensor:
    """Gram matrices (...,M,M) of x_i - y to scores (...)."""
    members = gram.shape[-1]
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

    def sums_by_region(
        self,
        forecast: Tensor,
        truth: Tensor,
        weights: Sequence[Tensor],
        climatology: Tensor | None,
    ) -> list[Sums]:
        """The score of each sample times the weight it brings."""
        banded = all(w.ndim == 2 and bool((w == w[:, :1]).all()) for w in weights)
        if banded and len(weights) > 1 and forecast.shape[1] <= truth.shape[-1]:
            rows = torch.stack([w[:, 0] for w in weights])
            scores = list(energy_score_of_bands(forecast, truth, rows, self.estimator))
        else:
            scores = [energy_score(forecast, truth, w, self.estimator) for w in weights]
        totals = [total_weight(w, truth) for w in weights]
        pairs = zip(scores, totals, strict=True)
        return [{"weight": t, "energy_score": torch.where(t > 0, s * t, 0)} for s, t in pairs]
