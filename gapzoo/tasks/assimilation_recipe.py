"""What a recipe of ``gapzoo assimilate`` may say."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from gapzoo.core import GapzooError, nearest
from gapzoo.tasks.assimilation import FORMS
from gapzoo.tasks.sampling import Sampling

WINDOWS = ("end", "start")


@dataclass
class AssimilationRecipe:
    """``gapzoo assimilate``.

    Args:
        prior: checkpoint of the prior.
        forecaster: checkpoint of a forecasting network, or ``speedy``, ``persistence``, ...
        hours: between analyses.
        form: of the forecast constraint: ``none``, ``renoise``, ``gaussian``, ``mean``, ``hybrid``.
        start_sigma: noise level of ``renoise``.
        inflation: factor on the variances of the forecast's static error.
        static: that error as a share of the climate's variance; the network's own where 0.
        measured: hours; where not 0 that error is what the forecaster's own errors over so many
            hours add in a cycle, measured at the start (``added_errors``).
        truth: archive of the truths that it is measured from.
        truth_days: first and last of them, none that the forecaster was trained on.
        filter: of ``hybrid``: ``length`` (m), ``vertical`` (log level), ``inflation``, ``rtps``.
        share: of ``hybrid``: part of the ensemble's covariance that is taken by scale.
        fading: power of the ensemble's variance over the climate's by which ``share`` and the
            static error of ``hybrid`` shrink as the ensemble settles.
        doubt: of the factor by which innovations may scale the ensemble's covariance; 0 is none.
        rtps: relaxation of the analysis to the spread of the forecasts, 0 to 1.
        learned: share of what the network knows beyond its Gaussian that is used beside forecasts.
        kept: channels or variables that analyses leave as the forecasts have them.
        centred: of ``mean`` and ``hybrid``: the members' noise sums to zero.
        window: the analysis is at the window's ``end`` or ``start`` (4D; needs a network).
        slot: hours to which times of observations are rounded; 0 is ``hours``.
        sampling: of ``gapzoo.tasks.Sampling``: sampler, steps, guidance, batch, ...
        start, end: first and last analysis; the observations' own where empty.
        forcing: archive whose forcing conditions the prior; climatology where empty.
        degrees: of freedom of Student-t observation errors; Gaussian where 0.
        limit: of the background check, in standard deviations; none where 0.
        beyond: ``refuse`` or ``nearest``: levels outside the world's.
        members: of the ensemble.
        seed: of everything.
        device: that networks compute on, such as ``cuda``.
    """

    prior: str = "unet_small.speedy-t21-v4"
    forecaster: str = "convcast_small.speedy-t21-v3"
    hours: int = 6
    form: str = "gaussian"
    start_sigma: float = 0.3
    inflation: float = 1.0
    static: float = 0.0
    measured: int = 0
    truth: str = ""
    truth_days: list[str] = field(default_factory=lambda: ["2004-01-01", "2005-12-31"])
    filter: dict[str, float] = field(default_factory=dict)
    share: float = 0.0
    fading: float = 0.0
    doubt: float = 0.0
    rtps: float = 0.0
    learned: float = 1.0
    kept: list[str] = field(default_factory=list)
    centred: bool = True
    window: str = "end"
    slot: int = 0
    sampling: dict[str, Any] = field(default_factory=dict)
    start: str = ""
    end: str = ""
    forcing: str = ""
    degrees: float = 0.0
    limit: float = 5.0
    beyond: str = "nearest"
    members: int = 16
    seed: int = 0
    device: str = "cpu"

    def __post_init__(self) -> None:
        for name, value, known in (("form", self.form, FORMS), ("window", self.window, WINDOWS)):
            if value not in known:
                raise GapzooError(f"{name} '{value}'; {nearest(value, known)}")
        if self.hours < 1 or self.members < 2 or self.hours % (self.slot or self.hours):
            raise GapzooError("'hours' must be a multiple of 'slot', 'members' 2 or more")
        if self.form == "hybrid" and self.window == "start":
            raise GapzooError(
                "'hybrid' localises observations by their places, which those after the analysis "
                "have not; take form 'gaussian', or window 'end'"
            )
        self._refuse_unmeasurable()
        if self.filter.get("adaptive"):
            raise GapzooError("adaptive inflation has a memory that no restart keeps; leave it out")
        Sampling.of(self.sampling)

    def _refuse_unmeasurable(self) -> None:
        """What is said of the measured error must fit together."""
        if bool(self.measured) != bool(self.truth):
            raise GapzooError("a static error is 'measured' over hours from the archive 'truth'")
        if len(self.truth_days) != 2 or self.measured % self.hours:
            raise GapzooError(
                f"truth_days {self.truth_days}, measured {self.measured}; give a first and a last "
                f"day, and a multiple of the cycle's {self.hours} h"
            )
        if self.measured and self.form in ("none", "renoise"):
            raise GapzooError(f"form '{self.form}' has no static error; leave 'measured' out")
