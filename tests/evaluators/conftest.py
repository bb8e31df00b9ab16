"""One small case that every evaluator can score: 5 samples, 6 members, 2 leads, 9 channels."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor

from gapzoo.core import Channels, Grid
from gapzoo.evaluators import EVALUATORS, Evaluator

CHANNELS = Channels(
    [
        *(f"u_component_of_wind@{s}" for s in (0.25, 0.75)),
        *(f"v_component_of_wind@{s}" for s in (0.25, 0.75)),
        *(f"temperature@{s}" for s in (0.25, 0.75)),
        *(f"specific_humidity@{s}" for s in (0.25, 0.75)),
        "surface_pressure",
    ],
    "sigma",
)
OPTIONS = {
    "brier": {"thresholds": [-0.3, 0.8]},
    "reliability": {"thresholds": [-0.3, 0.8]},
    "moisture": {"channels": CHANNELS},
    "dry_mass": {"channels": CHANNELS},
    "energy": {"channels": CHANNELS},
}


@dataclass
class Case:
    grid: Grid
    forecast: Tensor
    truth: Tensor

    def climatology(self, metric: Evaluator) -> Tensor | None:
        if not metric.needs_climatology:
            return None
        base = torch.zeros_like(self.truth) + 0.1
        return torch.stack([base - 0.43, base + 0.43], 1) if metric.climatology_axes else base

    def series(self, metric: Evaluator) -> dict[str, Tensor]:
        """Regressors by sample and lead, for a metric that takes some."""
        if not metric.series:
            return {}
        z = torch.tensor([[-1.1, 0.2, 1.3, 0.4, -0.6], [0.5, -1.2, 0.3, 1.4, -0.9]])
        both = torch.stack([z, 0.7 * z + z.flip(0)], -1)
        return {"series": both.movedim(1, 0)[:, : metric.regressors]}

    def build(self, name: str, **given) -> Evaluator:
        given = {"area_weights": self.grid.area_weights, **OPTIONS.get(name, {}), **given}
        return EVALUATORS.build(name, **given)

    def score(self, name: str, part: slice = slice(None), **given) -> Tensor:
        metric = self.build(name, **given)
        return self.updated(metric, part).compute()

    def updated(self, metric: Evaluator, part: slice = slice(None), mask: Tensor | None = None):
        climatology = self.climatology(metric)
        climatology = None if climatology is None else climatology[part]
        series = {k: v[part] for k, v in self.series(metric).items()}
        metric.update(self.forecast[part], self.truth[part], mask, climatology, **series)
        return metric


@pytest.fixture
def case() -> Case:
    generator = torch.Generator().manual_seed(7)
    grid = Grid((-75, -45, -15, 15, 45, 75), tuple(np.arange(8) * 45.0))
    signal = torch.randn(5, 2, 9, 6, 8, generator=generator)
    noise = torch.randn(5, 6, 2, 9, 6, 8, generator=generator)
    truth = signal + torch.randn(5, 2, 9, 6, 8, generator=generator)
    return Case(grid, signal[:, None] + noise, truth)
