"""Rank histogram and calibration index.

    r = #{m : x_m < y},  r = 0..M;  f_r the area-weighted share of cases with rank r
    calibration index = sum_r |f_r - 1/(M+1)|

A calibrated ensemble has f_r = 1/(M+1) (Hamill 2001); the index is 0 then and below 2 always
(the reliability index of Delle Monache et al. 2006). Where t members equal the truth, all ranks
r..r+t are alike: with a generator one of them is drawn (Hamill & Colucci 1998), without one each
gets 1/(t+1) of the case, the expectation of the draw.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from gapzoo.evaluators import EVALUATORS
from gapzoo.evaluators.base import Evaluator, Sums, total_weight


def ranks(
    forecast: Tensor, truth: Tensor, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Least rank of the truth, and members equal to it: (B,M,*E,H,W) to (B,*E,H,W) each."""
    low = (forecast < truth[:, None]).sum(1)
    ties = (forecast == truth[:, None]).sum(1)
    if generator is None:
        return low, ties
    draw = torch.rand(ties.shape, generator=generator).to(ties.device)
    return low + (draw * (ties + 1)).long(), torch.zeros_like(ties)


def rank_counts(low: Tensor, ties: Tensor, weight: Tensor, members: int) -> Tensor:
    """Weight of each rank, (B,*E,M+1) float64, from ``ranks``."""
    share = (weight / (ties + 1)).flatten(-2)
    first, ties = low.flatten(-2), ties.flatten(-2)
    steps = share.new_zeros((*share.shape[:-1], members + 2))
    steps.scatter_add_(-1, first, share).scatter_add_(-1, first + ties + 1, -share)
    return steps.cumsum(-1)[..., :-1]


@EVALUATORS.register("rank_histogram")
class RankHistogram(Evaluator):
    """Share of cases by the truth's rank among the members, (*E,M+1); sums to 1.

    Args:
        generator: draws ranks among ties; None shares them out.
    """

    statistics = ("counts",)
    counts_members = True
    bins: ClassVar[tuple[str, ...]] = ("rank",)

    def __init__(
        self, area_weights: Any, *, region: Any = None, generator: torch.Generator | None = None
    ) -> None:
        super().__init__(area_weights, region=region)
        self.generator = generator

    def fields(self, forecast: Tensor, truth: Tensor, climatology: Tensor | None) -> Sums:
        """Ranks and ties at each point, and the number of members."""
        low, ties = ranks(forecast, truth, self.generator)
        return {"low": low, "ties": ties, "members": torch.tensor(forecast.shape[1])}

    def gathered(self, fields: Sums, truth: Tensor, weight: Tensor) -> Sums:
        """Weight of each rank."""
        counts = rank_counts(fields["low"], fields["ties"], weight, int(fields["members"]))
        return {"weight": total_weight(weight, truth), "counts": counts}


@EVALUATORS.register("calibration_index")
class CalibrationIndex(RankHistogram):
    """Distance of the rank histogram from a flat one, 0 to 2."""

    bins: ClassVar[tuple[str, ...]] = ()

    def finish(self, means: Mapping[str, Tensor]) -> Tensor:
        """Sum of the absolute departures."""
        shares = means["counts"]
        return (shares - 1 / shares.shape[-1]).abs().sum(-1)
