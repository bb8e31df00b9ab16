"""Stability of long runs: finiteness, drift, variance ratio, extremes.

    finite share = share of states (samples, members) whose every value is finite
    first step   = least step l at which the finite share is below 1; L where there is none
    drift        = sum_l (t_l - t_bar)(b_l - b_bar) / sum_l (t_l - t_bar)^2,  b_l the bias at t_l
    ratio        = <var_f> / <var_y>,  var the variance over samples at a point, <.> the area mean
    extremes     = least and greatest value of forecast and truth

A run of one long simulation is scored with its times as the first kept axis (drift) or as samples
(variance ratio, extremes).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from gapzoo.core import GapzooError
from gapzoo.evaluators import EVALUATORS
from gapzoo.evaluators.base import Evaluator, Sums, total_weight
from gapzoo.evaluators.error import Bias


def first_nonfinite(states: Tensor) -> Tensor:
    """First step of runs (B,M,L,...) with a value that is not finite, (B,M); L where none has."""
    bad = ~torch.isfinite(states.flatten(3)).all(-1)
    steps = states.shape[2]
    return torch.where(bad.any(-1), bad.int().argmax(-1), steps)


def trend(series: Tensor, times: Tensor) -> Tensor:
    """Least-squares slope of series (L,*E) over times (L,), in units of the series per time."""
    t = times.double() - times.double().mean()
    return torch.tensordot(t, series.double(), dims=1) / t.square().sum()


@EVALUATORS.register("finite_share")
class FiniteShare(Evaluator):
    """Share of states without NaN or infinity, (*E), 0 to 1."""

    statistics = ("finite",)

    def sums(
        self, forecast: Tensor, truth: Tensor, weight: Tensor, climatology: Tensor | None
    ) -> Sums:
        """Weight times the share of members that are finite at all points that count."""
        outside = (weight == 0).expand(truth.shape)[:, None]
        share = (torch.isfinite(forecast) | outside).flatten(-2).all(-1).double().mean(1)
        total = total_weight(weight, truth)
        return {"weight": total, "finite": share * total}


@EVALUATORS.register("first_nonfinite")
class FirstNonfinite(FiniteShare):
    """First step along the first kept axis with NaN or infinity in any run, (*E[1:]); L if none."""

    along_lead = True

    def finish(self, means: Mapping[str, Tensor]) -> Tensor:
        """The first lead whose finite share is below 1."""
        share = means["finite"]
        if share.ndim == 0:
            raise GapzooError("first_nonfinite needs the leads as the first axis behind members")
        bad = share < 1 - 1e-12
        return torch.where(bad.any(0), bad.int().argmax(0), len(share)).double()


@EVALUATORS.register("drift")
class Drift(Bias):
    """Trend of the bias along the first kept axis, (*E[1:]), units per unit of lead.

    Args:
        leads: (L,) leads of that axis, in any unit; None counts steps.
    """

    along_lead = True
    takes = ("leads",)

    def __init__(
        self, area_weights: Any, *, region: Any = None, leads: Sequence[float] | None = None
    ) -> None:
        super().__init__(area_weights, region=region)
        self.leads = None if leads is None else torch.as_tensor(leads, dtype=torch.float64)

    def finish(self, means: Mapping[str, Tensor]) -> Tensor:
        """Slope of the mean error."""
        error = means["error"]
        if error.ndim == 0 or error.shape[0] < 2:
            raise GapzooError("drift needs two leads or more, as the first axis behind the members")
        leads = torch.arange(error.shape[0]) if self.leads is None else self.leads
        if len(leads) != error.shape[0]:
            raise GapzooError(
                f"drift was given {len(leads)} leads for {error.shape[0]} in the data"
            )
        return trend(error, leads.to(error.device))


@EVALUATORS.register("variance_ratio")
class VarianceRatio(Evaluator):
    """Variance over samples of a member over that of the truth, (*E); 1 is right.

    Each member's variance is about its own mean, so that forecast and truth share the factor of
    the sample size and the ratio needs no correction. Keeps M+1 fields for each of *E.
    """

    statistics = ("cases", "f", "ff", "o", "oo", "share")

    def sums(
        self, forecast: Tensor, truth: Tensor, weight: Tensor, climatology: Tensor | None
    ) -> Sums:
        """Powers at each point: f (B,*E,M*H*W), the others (B,*E,H*W)."""
        counts = (weight > 0).expand(truth.shape)
        f = torch.where(counts[:, None], forecast, 0).double().flatten(-2)
        o = torch.where(counts, truth, 0).double().flatten(-2)
        weight = weight.expand(truth.shape).flatten(-2)
        return {
            "weight": weight.new_ones(truth.shape[:-2]),
            "cases": counts.flatten(-2).double(),
            "f": f.movedim(1, -2).flatten(-2),
            "ff": f.square().mean(1),
            "o": o,
            "oo": o.square(),
            "share": weight,
        }

    def finish(self, means: Mapping[str, Tensor]) -> Tensor:
        """Ratio of the area means of the variances."""
        cases, points = means["cases"], means["cases"].shape[-1]
        f = means["f"].unflatten(-1, (-1, points)).square().mean(-2)
        var_f = means["ff"] / cases - f / cases.square()
        var_o = means["oo"] / cases - (means["o"] / cases).square()
        ever = cases > 0
        total = [torch.where(ever, v * means["share"], 0).sum(-1) for v in (var_f, var_o)]
        return total[0] / total[1]


@EVALUATORS.register("extremes")
class Extremes(Evaluator):
    """Extremes, (*E,4): the forecast's least and greatest value, then the truth's.

    NaN where the forecast is. Held as maxima of -x and x, reduced by maximum instead of by sum.
    """

    bins = ("extreme",)
    labels: ClassVar = {
        "extreme": ("forecast_least", "forecast_greatest", "truth_least", "truth_greatest")
    }
    maxima = ("greatest",)

    def sums(
        self, forecast: Tensor, truth: Tensor, weight: Tensor, climatology: Tensor | None
    ) -> Sums:
        """Maxima of -x and x of each sample, (B,*E,4)."""
        counts = (weight > 0).expand(truth.shape)

        def signed(field: Tensor) -> list[Tensor]:
            return [
                torch.where(counts, x, -torch.inf).amax((-2, -1)).double() for x in (-field, field)
            ]

        found = signed(-(-forecast).amax(1))[:1] + signed(forecast.amax(1))[1:] + signed(truth)
        return {"weight": total_weight(weight, truth), "greatest": torch.stack(found, -1)}

    def finish(self, means: Mapping[str, Tensor]) -> Tensor:
        """Least and greatest of the forecast, then of the truth."""
        greatest = means["greatest"]
        return greatest * greatest.new_tensor([-1, 1, -1, 1])
