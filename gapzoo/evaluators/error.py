"""Errors of the ensemble mean: RMSE, bias, MAE.

    e = x_bar - y,  x_bar the mean over members
    bias = <e>,  MAE = <|e|>,  RMSE = sqrt(<e^2>)

with <.> the area-weighted mean over samples and points; the root is taken once, after averaging
(WeatherBench 2, Rasp et al. 2024, eq. 1, takes it there too). ``member_rmse`` is the RMSE of a
single member: <.> runs over members as well.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from gapzoo.evaluators import EVALUATORS
from gapzoo.evaluators.base import Evaluator, Sums


def mean_error(forecast: Tensor, truth: Tensor) -> Tensor:
    """x_bar - y at each point: (B,M,*E,H,W) and (B,*E,H,W) to (B,*E,H,W).

    Differences are summed, not values: a mean of pressures near 1e5 Pa is good to 1e-2 in float32.
    """
    total = forecast[:, 0] - truth
    for m in range(1, forecast.shape[1]):
        total += forecast[:, m] - truth
    return total / forecast.shape[1]


def member_squared_error(forecast: Tensor, truth: Tensor) -> Tensor:
    """Mean over members of (x_m - y)^2, (B,*E,H,W)."""
    return (forecast - truth[:, None]).square().mean(1)


@EVALUATORS.register("rmse")
class RMSE(Evaluator):
    """Root-mean-square error of the ensemble mean; units of the variable."""

    statistics = ("squared_error",)

    def fields(self, forecast: Tensor, truth: Tensor, climatology: Tensor | None) -> Sums:
        """Squared error of the ensemble mean."""
        return {"squared_error": mean_error(forecast, truth).square()}

    def finish(self, means: Mapping[str, Tensor]) -> Tensor:
        """Root of the mean."""
        return means["squared_error"].sqrt()


@EVALUATORS.register("member_rmse")
class MemberRMSE(RMSE):
    """Root-mean-square error of single members; units of the variable."""

    def fields(self, forecast: Tensor, truth: Tensor, climatology: Tensor | None) -> Sums:
        """Squared error, averaged over members."""
        return {"squared_error": member_squared_error(forecast, truth)}


@EVALUATORS.register("bias")
class Bias(Evaluator):
    """Mean of ensemble mean minus truth; units of the variable."""

    statistics = ("error",)

    def fields(self, forecast: Tensor, truth: Tensor, climatology: Tensor | None) -> Sums:
        """Error of the ensemble mean."""
        return {"error": mean_error(forecast, truth)}


@EVALUATORS.register("mae")
class MAE(Evaluator):
    """Mean absolute error of the ensemble mean; units of the variable."""

    statistics = ("absolute_error",)

    def fields(self, forecast: Tensor, truth: Tensor, climatology: Tensor | None) -> Sums:
        """Absolute error of the ensemble mean."""
        return {"absolute_error": mean_error(forecast, truth).abs()}
