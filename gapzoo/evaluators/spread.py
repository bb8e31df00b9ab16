"""Ensemble spread and the spread/skill ratio.

    s^2 = 1/(M-1) sum_m (x_m - x_bar)^2
    spread = sqrt(<s^2>)
    spread/skill = sqrt((M+1)/M <s^2>) / sqrt(<(x_bar - y)^2>)

A truth drawn like the members has E[(x_bar - y)^2] = (M+1)/M E[s^2], so that the ratio of a
calibrated ensemble of any size is 1 (Fortin et al. 2014, eq. 15). Roots are taken after averaging.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from gapzoo.evaluators import EVALUATORS
from gapzoo.evaluators.base import Evaluator, Sums
from gapzoo.evaluators.error import mean_error


def variance(forecast: Tensor) -> Tensor:
    """Unbiased variance over members: (B,M,*E,H,W) to (B,*E,H,W)."""
    return forecast.var(1, correction=1)


@EVALUATORS.register("spread")
class Spread(Evaluator):
    """Root of the mean ensemble variance (M-1); units of the variable."""

    statistics = ("variance",)
    least_members = 2

    def fields(self, forecast: Tensor, truth: Tensor, climatology: Tensor | None) -> Sums:
        """Ensemble variance."""
        return {"variance": variance(forecast)}

    def finish(self, means: Mapping[str, Tensor]) -> Tensor:
        """Root of the mean."""
        return means["variance"].sqrt()


@EVALUATORS.register("spread_skill")
class SpreadSkill(Evaluator):
    """Corrected spread over RMSE of the ensemble mean; 1 for a calibrated ensemble."""

    statistics = ("corrected_variance", "squared_error")
    least_members = 2

    def fields(self, forecast: Tensor, truth: Tensor, climatology: Tensor | None) -> Sums:
        """Ensemble variance times (M+1)/M, and the squared error of the mean."""
        members = forecast.shape[1]
        return {
            "corrected_variance": variance(forecast) * ((members + 1) / members),
            "squared_error": mean_error(forecast, truth).square(),
        }

    def finish(self, means: Mapping[str, Tensor]) -> Tensor:
        """Ratio of the roots of the means."""
        return (means["corrected_variance"] / means["squared_error"]).sqrt()
