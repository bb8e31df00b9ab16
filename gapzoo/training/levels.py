"""The loss by noise level: sums only, so that it streams and reduces over processes."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor
from torchmetrics import Metric

from gapzoo.diffusion import LossValue

EDGES = (0.1, 0.3, 1.0, 3.0, 10.0)
"""Noise-to-signal ratios that part the bins."""


class LossByLevel(Metric):
    """Mean loss, overall and in each bin of the noise-to-signal ratio."""

    full_state_update = False
    total: Tensor
    count: Tensor

    def __init__(self, edges: tuple[float, ...] = EDGES) -> None:
        super().__init__()
        self.edges = edges
        zeros = torch.zeros(len(edges) + 1, dtype=torch.float64)
        self.add_state("total", zeros, dist_reduce_fx="sum")
        self.add_state("count", zeros.clone(), dist_reduce_fx="sum")

    def update(self, value: LossValue) -> None:
        """Add a batch."""
        edges = torch.tensor(self.edges, device=value.ratio.device)
        index = torch.bucketize(value.ratio, edges)
        self.total.index_add_(0, index, value.per_sample.to(self.total))
        self.count.index_add_(0, index, torch.ones_like(value.per_sample).to(self.count))

    def compute(self) -> dict[str, Tensor]:
        """``loss`` and ``loss_<low>_<high>`` of each bin that has samples."""
        result = {"loss": self.total.sum() / self.count.sum()}
        limits = (0.0, *self.edges, float("inf"))
        for i, (low, high) in enumerate(itertools.pairwise(limits)):
            if self.count[i] > 0:
                result[f"loss_{low:g}_{high:g}"] = self.total[i] / self.count[i]
        return {name: value.float() for name, value in result.items()}
