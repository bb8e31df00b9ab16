"""A model's bias, learnt from what analyses keep on changing (Dee 2005, sect. 3b and 5).

Where a model errs in the same direction at every step, so do its forecasts before each analysis.
The bias b is taken off a forecast, and moves with what the analysis still had to change,

    f <- f - b,      b <- b - rate (mean(analysis) - mean(f)),

so that it forgets within 1 / rate analyses. A filter's increments are its own estimate, with the
localisation and the weights that it has; where nothing is observed b stays near zero.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from gapzoo.core import GapzooError

SETTLING = 8
"""Analyses at the start whose changes say more of the first ensemble than of the model."""


class Bias:
    """Estimates the bias of forecasts, state by state.

    Args:
        rate: 0 to 1; 0 leaves forecasts as they are.
    """

    def __init__(self, rate: float) -> None:
        if not 0 <= rate <= 1:
            raise GapzooError(f"a bias that is learnt at the rate {rate}; give 0 to 1")
        self.rate, self.count = rate, 0
        self.field: Tensor | None = None
        """(C, H, W) b, once there is one."""

    def off(self, forecast: Tensor) -> Tensor:
        """Forecasts (M, C, H, W) without the bias."""
        return forecast if self.field is None else forecast - self.field

    def learn(self, forecast: Tensor | None, analysis: Tensor) -> None:
        """Take in an analysis (M, C, H, W) of a forecast that ``off`` gave."""
        self.count += 1
        if not self.rate or forecast is None or self.count <= SETTLING:
            return
        change = self.rate * (analysis.mean(0) - forecast.mean(0))
        self.field = -change if self.field is None else self.field - change

    def memory(self) -> dict[str, np.ndarray]:
        """What goes on depends on."""
        if not self.rate:
            return {}
        field = {} if self.field is None else {"bias": self.field.numpy()}
        return {"analyses": np.array(self.count), **field}

    def remember(self, memory: Mapping[str, np.ndarray]) -> None:
        """Take what ``memory`` gave; nothing is a new beginning."""
        self.count = int(memory.get("analyses", 0))
        self.field = torch.from_numpy(memory["bias"].copy()) if "bias" in memory else None
