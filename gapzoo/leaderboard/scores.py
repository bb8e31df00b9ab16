"""From ensembles to the numbers of a row, case by case and channel by channel.

Every score is first taken per channel in SI units, area-weighted; the headline is the mean over
channels of the score over that channel's climatological spread:

    CRPS     mean_c  CRPS_c / s_c
    RMSE     sqrt( mean_c  MSE_c / s_c^2 )
    spread/skill   sqrt( mean_c (M+1)/M VAR_c / s_c^2 ) / RMSE
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gapzoo.core.world import World
from gapzoo.evaluators.crps import Estimator, ensemble_crps
from gapzoo.evaluators.spread import variance


@dataclass
class Scores:
    """Scores of one setting (a density, a lead): lists over cases of (C,) arrays.

    Args:
        world: of the states.
        estimator: of the CRPS.
    """

    world: World
    estimator: Estimator = "fair"
    crps: list[np.ndarray] = field(default_factory=list)
    mse: list[np.ndarray] = field(default_factory=list)
    var: list[np.ndarray] = field(default_factory=list)
    product: list[np.ndarray] = field(default_factory=list)
    ranks: Any = 0.0
    members: int = 0

    def add(self, ensemble: Tensor, truth: Tensor) -> None:
        """Add a case: (M, C, H, W) and (C, H, W), normalised."""
        std = self.world.std
        members, true = (ensemble * std)[None], (truth * std)[None]
        self.members = len(ensemble)
        self.crps.append(self._area(ensemble_crps(members, true, self.estimator)[0]))
        mean = members.mean(1)
        self.mse.append(self._area((mean - true)[0] ** 2))
        moments = [self._area(x[0] ** 2) for x in (mean, true)]
        self.product.append(np.stack([self._area((mean * true)[0]), *moments]))
        if self.members > 1:
            self.var.append(self._area(variance(members)[0]))
            self._rank(members, true)

    def _rank(self, members: Tensor, true: Tensor) -> None:
        below = (members < true[:, None]).sum(1).flatten()
        self.ranks = self.ranks + np.bincount(below.numpy(), minlength=self.members + 1)

    def _area(self, field: Tensor) -> np.ndarray:
        weights = torch.from_numpy(self.world.grid.area_weights)[:, None] / field[0].numel()
        return (field.double() * weights).sum((-2, -1)).numpy()

    def crps_by_case(self) -> np.ndarray:
        """(cases,) headline CRPS of each case."""
        return (np.stack(self.crps) / self.world.spread).mean(1)

    def summary(self) -> dict[str, Any]:
        """The row's numbers: headline, by channel and by case."""
        spread = self.world.spread
        crps, mse = np.mean(self.crps, 0), np.mean(self.mse, 0)
        rmse = float(np.sqrt(np.mean(mse / spread**2)))
        acc = self._acc()
        out: dict[str, Any] = {
            "crps": float(np.mean(crps / spread)),
            "rmse": rmse,
            "acc": float(acc.mean()),
            "crps_by_channel": _named(self.world, crps),
            "rmse_by_channel": _named(self.world, np.sqrt(mse)),
            "crps_by_case": [round(float(x), 5) for x in self.crps_by_case()],
        }
        if self.var:
            var = np.mean(self.var, 0) * (self.members + 1) / self.members
            out["spread_skill"] = float(np.sqrt(np.mean(var / spread**2)) / rmse)
            ratio = np.sqrt(var / mse)
            out["spread_skill_by_channel"] = _named(self.world, ratio)
            out["ranks"] = [int(n) for n in self.ranks]
        return out

    def _acc(self) -> np.ndarray:
        """(C,) anomaly correlation: sums over cases and area first, then the ratio."""
        cross, first, second = np.sum(self.product, 0)
        return cross / np.sqrt(np.maximum(first * second, 1e-30))


def _named(world: World, values: np.ndarray) -> dict[str, float]:
    return {c.label: float(f"{v:.5g}") for c, v in zip(world.channels, values, strict=True)}
