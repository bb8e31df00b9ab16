"""GAP in a cycle: the prior under observations and forecasts of its own last analysis."""

from __future__ import annotations

from typing import Any, ClassVar

import pandas as pd
from torch import Tensor

from gapzoo.core import GapzooError, MemberGenerator
from gapzoo.leaderboard.cycles import CYCLES, CycleMethod
from gapzoo.leaderboard.methods import Case, Setting, checkpoint_for, tuned_options
from gapzoo.leaderboard.protocol import Protocol
from gapzoo.tasks.assimilation import Assimilation, constraint
from gapzoo.tasks.flow import ensemble_filter
from gapzoo.tasks.sampling import Sampling
from gapzoo.tasks.settings import measured_error, static_error


@CYCLES.register("gap")
class GapCycle(CycleMethod):
    """The prior under observations and forecasts.

    Args:
        prior: checkpoint.
        forecaster: checkpoint of a network, or ``speedy``.
        tuned: result of ``gapzoo leaderboard tune``: options by network.
        options: those of ``defaults``, and of Sampling:

            - ``form`` of the forecast constraint, see ``gapzoo.tasks.assimilation``;
            - ``start_sigma`` of ``renoise``;
            - ``inflation``: factor on the variances of the static error;
            - ``static``: the static error as a share of the climate's variance, scale by scale,
              or ``measured``, mean squares of the forecaster's errors from the truth in the
              validation years by mode, instead of the network's own error; needed with ``speedy``;
            - ``over``, of ``measured``: hours that the errors grow over (``added_errors``);
            - ``filter`` of ``hybrid``, see ``gapzoo.tasks.flow.ensemble_filter``;
            - ``share`` of ``hybrid``: part of the ensemble's covariance taken by scale;
            - ``fading``: power of the ensemble's variance over the climate's by which ``share`` and
              the static error of ``hybrid`` shrink;
            - ``doubt`` of the factor by which innovations may scale the ensemble's covariance;
            - ``rtps``: relaxation of the analysis to the spread of the forecasts;
            - ``learned``: share of what the network knows beyond its Gaussian that is used beside
              forecasts;
            - ``kept``: channels or variables that analyses leave as the forecasts have them;
            - ``centred``, of ``mean`` and ``hybrid``: the members' noise sums to zero.
    """

    defaults: ClassVar[dict[str, Any]] = {
        "form": "gaussian",
        "start_sigma": 0.3,
        "inflation": 1.0,
        "static": None,
        "over": 0,
        "filter": None,
        "share": 0.0,
        "fading": 0.0,
        "doubt": 0.0,
        "rtps": 0.0,
        "learned": 1.0,
        "kept": [],
        "centred": True,
    }

    def __init__(
        self,
        setting: Setting,
        protocol: Protocol,
        prior: str | None = None,
        forecaster: str = "speedy",
        ensemble: int | None = None,
        tuned: str | None = None,
        **options: Any,
    ) -> None:
        if prior is None:
            raise GapzooError("entry 'gap' needs 'prior'=CHECKPOINT")
        self.options, self.tuned = options, tuned_options(tuned) if tuned else {}
        self.prior = checkpoint_for(setting, prior)
        super().__init__(setting, protocol, forecaster, ensemble, self.prior)
        for label in self.tuned or [""]:
            self.task = self._task(self.chosen(label))

    def chosen(self, label: str) -> dict[str, Any]:
        """Options of a network: the defaults, those tuned for it, those given."""
        own = self.tuned.get(label, {})
        fixed = ("prior", "forecaster", "ensemble")
        return {
            **self.defaults,
            **{k: v for k, v in own.items() if k not in fixed},
            **self.options,
        }

    def _task(self, chosen: dict[str, Any]) -> Assimilation:
        form, given = chosen["form"], {k: chosen[k] for k in self.defaults}
        inflation, static, where = (given.pop(k) for k in ("inflation", "static", "filter"))
        self.over = given.pop("over")
        hybrid = form == "hybrid"
        return Assimilation(
            prior=self.prior.prior,
            world=self.prior.world,
            sampling=Sampling.of({k: v for k, v in chosen.items() if k not in self.defaults}),
            forecaster=self.model,
            error=self._error(form, inflation, static),
            filter=ensemble_filter(self.prior.world, where or {}) if hybrid else None,
            **given,
        )

    def _error(self, form: str, inflation: float, static: float | str | None) -> Any:
        if self.over and static != "measured":
            raise GapzooError(f"over={self.over} is of static=measured; give that too, or no over")
        if form in ("none", "renoise"):
            return None
        if static == "measured":
            scale = self.setting.world.std / self.prior.world.std
            return measured_error(self.prior, self.errors(self.over) * scale, inflation)
        if isinstance(static, str):
            raise GapzooError(f"static '{static}'; give a share of the climate, or 'measured'")
        return static_error(
            self.prior, self.network_of_model, self.protocol.hours, inflation, static
        )

    def prepare(self, network: Any) -> None:
        """See CycleMethod."""
        super().prepare(network)
        self.task = self._task(self.chosen(network.label))

    def first(self, here: Case, generator: MemberGenerator) -> Tensor | None:
        """None: the prior is the background."""
        return None

    def analyse(self, here: Case, background: Tensor | None, generator: MemberGenerator) -> Tensor:
        """See CycleMethod."""
        net, own, mine = self.network, self.prior.world, self.setting.world
        then = pd.DatetimeIndex([here.time])
        if background is not None:
            background = own.renormalise(background[None], then, mine)[0]
        seen = constraint(own, net.stations, here.observations, net.errors, here.time)
        drawn = self.task.analyse(here.time, generator, seen, here.forcing, background)
        return mine.renormalise(drawn[None], then, own)[0]

    def provenance(self) -> dict[str, Any]:
        """Checkpoints and settings."""
        every, known = self.chosen(""), self.defaults
        return {
            **super().provenance(),
            "checkpoint": self.prior.name,
            "weights_sha256": self.prior.hash,
            "options": {k: every[k] for k in known} | ({"tuned": self.tuned} if self.tuned else {}),
            "sampling": vars(Sampling.of({k: v for k, v in every.items() if k not in known})),
        }
