"""From cases to the numbers of a row: one setting (a density, a lead) at a time.

Every score is first taken per channel in SI units, area-weighted; the headline is the mean over
channels of the score over that channel's climatological spread s_c:

    CRPS     mean_c  CRPS_c / s_c
    RMSE     sqrt( mean_c  MSE_c / s_c^2 )
    spread/skill   sqrt( mean_c (M+1)/M VAR_c / s_c^2 ) / RMSE, and so by zonal wavenumber
    ACC      mean_c  <f o>_c / sqrt( <f f>_c <o o>_c )

with sums over cases before roots and ratios. ``by_case`` holds the terms of these of every case, as
``mean`` over channels and for each headline field, which is what intervals and paired differences
are made from.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from gapzoo.core.world import World
from gapzoo.evaluators.crps import Estimator
from gapzoo.leaderboard.statistics import MAPPED, Arrays, headlines, statistics

_SUMMED = ("ranks", "maps", "channel.power", "channel.waves", "headline.power", "headline.waves")
POWERS = {"crps": 1, "squared_error": 2, "corrected_variance": 2}
"""Power of the spread that each statistic is divided by in the mean over channels."""


@dataclass
class Scores:
    """Scores of one setting, from its cases in the order of their times.

    Args:
        world: of the states.
        estimator: of the CRPS.
    """

    world: World
    estimator: Estimator = "fair"
    cases: list[Arrays] = field(default_factory=list)
    sums: Arrays = field(default_factory=dict)

    def add(self, ensemble: Tensor, truth: Tensor, time: pd.Timestamp | None = None) -> None:
        """Add a case: (M, C, H, W) and (C, H, W), normalised; see ``statistics``."""
        self.take(statistics(self.world, ensemble, truth, self.estimator, time))

    def take(self, case: Arrays) -> None:
        """Add a case's statistics."""
        for name in _SUMMED:
            if name in case:
                self.sums[name] = self.sums.get(name, 0.0) + case[name].astype(np.float64)
        small = {k: v for k, v in case.items() if k not in self.sums}
        self.cases.append(small)

    def crps_by_case(self) -> np.ndarray:
        """(cases,) headline CRPS of each case."""
        return self._by_case("channel", "crps")["mean"]

    def summary(self, maps: bool = False) -> dict[str, Any]:
        """The row's numbers: headline, by channel, by headline field and by case.

        Args:
            maps: whether to keep maps of error and spread.
        """
        spread = self.world.spread
        found = self._means("channel")
        out: dict[str, Any] = {
            "crps": float(np.mean(found["crps"] / spread)),
            "rmse": float(np.sqrt(np.mean(found["squared_error"] / spread**2))),
            "acc": float(_acc(found).mean()),
            "crps_by_channel": self._named(found["crps"]),
            "rmse_by_channel": self._named(np.sqrt(found["squared_error"])),
        }
        if "corrected_variance" in found:
            error = found["squared_error"]
            variance = found["corrected_variance"]
            out["spread_skill"] = float(np.sqrt(np.mean(variance / spread**2)) / out["rmse"])
            out["spread_skill_by_channel"] = self._named(np.sqrt(variance / error))
            out["spread_skill_by_wavenumber"] = self._waves()
            out["ranks"] = [int(n) for n in self.sums["ranks"]]
        out["headline"] = self._headline()
        out["spectrum_ratio"] = self._spectra()
        out["by_case"] = self._cases()
        if maps and "maps" in self.sums:
            out["maps"] = self._maps()
        return out

    def _means(self, group: str) -> Arrays:
        names = [k for k in self.cases[0] if k.startswith(f"{group}.")]
        return {k.partition(".")[2]: np.mean([c[k] for c in self.cases], 0) for k in names}

    def _headline(self) -> dict[str, dict[str, float]]:
        """Scores of each headline field, SI units."""
        found = self._means("headline")
        if not found:
            return {}
        table = {"crps": found["crps"], "rmse": np.sqrt(found["squared_error"])}
        table["acc"] = _acc(found)
        if "corrected_variance" in found:
            table["spread_skill"] = np.sqrt(found["corrected_variance"] / found["squared_error"])
        return {
            label: {name: _round(values[n]) for name, values in table.items()}
            for n, label in enumerate(headlines(self.world))
        }

    def _spectra(self) -> dict[str, list[float]]:
        """Power of the members over the truth's by zonal wavenumber; ``mean`` over channels."""
        drawn, true = self.sums["channel.power"]
        out = {"mean": _list((drawn / np.maximum(true, 1e-300)).mean(0), 4)}
        if "headline.power" in self.sums:
            drawn, true = self.sums["headline.power"]
            ratios = drawn / np.maximum(true, 1e-300)
            labels = headlines(self.world)
            out |= {label: _list(r, 4) for label, r in zip(labels, ratios, strict=True)}
        return out

    def _waves(self) -> dict[str, list[float]]:
        """Spread over error by zonal wavenumber; ``mean`` of all channels together."""
        error, variance = self.sums["channel.waves"] / self.world.spread[:, None] ** 2
        found = {"mean": (error.sum(0), variance.sum(0))}
        if "headline.waves" in self.sums:
            pairs = self.sums["headline.waves"].swapaxes(0, 1)
            found |= dict(zip(headlines(self.world), map(tuple, pairs), strict=True))
        ratio = {name: np.sqrt(b / np.maximum(a, 1e-300)) for name, (a, b) in found.items()}
        return {name: _list(values, 4) for name, values in ratio.items()}

    def _by_case(self, group: str, name: str) -> dict[str, np.ndarray]:
        """(cases,) of one statistic: the channels' mean, or each headline field."""
        values = np.stack([case[f"{group}.{name}"] for case in self.cases])
        if group == "channel":
            return {"mean": (values / self.world.spread ** POWERS[name]).mean(1)}
        return dict(zip(headlines(self.world), values.T, strict=True))

    def _cases(self) -> dict[str, dict[str, list[float]]]:
        out: dict[str, dict[str, list[float]]] = {}
        for key in self.cases[0]:
            group, _, name = key.partition(".")
            if group == "headline" or (group == "channel" and name in POWERS):
                found = self._by_case(group, name).items()
                out.setdefault(name, {}).update({k: _list(v, 6) for k, v in found})
        return out

    def _maps(self) -> dict[str, dict[str, Any]]:
        """Root-mean-square error and spread over cases at every point, SI units."""
        roots = np.sqrt(self.sums["maps"] / len(self.cases))
        labels = [label for label in MAPPED if label in headlines(self.world)]
        kinds = ("rmse", "spread")[: len(roots)]
        return {
            label: {kind: packed(roots[k, n]) for k, kind in enumerate(kinds)}
            for n, label in enumerate(labels)
        }

    def _named(self, values: np.ndarray) -> dict[str, float]:
        return {c.label: _round(v) for c, v in zip(self.world.channels, values, strict=True)}


def packed(field: np.ndarray) -> dict[str, Any]:
    """A field (H, W) in steps from ``low`` to ``high``, rows in order, as base64 bytes.

    There are 256 steps; where something is missing (NaN) the last one says so, as does
    ``"missing": true``.
    """
    there = np.isfinite(field)
    known = field[there] if there.any() else np.zeros(1)
    low, high = float(known.min()), float(known.max())
    last = 255 if there.all() else 254
    share = (np.where(there, field, low) - low) / max(high - low, 1e-30)
    steps = np.where(there, np.round(last * share), 255).astype(np.uint8)
    data = base64.b64encode(steps.tobytes()).decode()
    out = {"low": _round(low), "high": _round(high), "shape": list(field.shape), "data": data}
    return out if there.all() else {**out, "missing": True}


def _acc(means: Arrays) -> np.ndarray:
    return means["fo"] / np.sqrt(np.maximum(means["ff"] * means["oo"], 1e-30))


def _round(value: float, digits: int = 5) -> float:
    return float(f"{value:.{digits}g}")


def _list(values: np.ndarray, digits: int) -> list[float]:
    return [_round(float(v), digits) for v in values]
