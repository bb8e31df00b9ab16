"""Observations by place: the levels of a sounding, the variables of a station."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Places:
    """Which observations share a place, and what covariance theirs have there.

    Args:
        rows: (S,k) numbers of the observations; -1 where a place has fewer than k.
        covariance: (S,k,k), of errors or of what is to be solved for; anything where there is no
            observation.
        latitude, longitude: (S,) degrees.
    """

    rows: Tensor
    covariance: Tensor
    latitude: Tensor
    longitude: Tensor

    def __len__(self) -> int:
        return len(self.rows)

    @classmethod
    def apart(cls, operator: Any) -> Places:
        """The places of an operator's ``latitude`` and ``longitude`` (N,); covariances are 1."""
        where = torch.stack([operator.latitude.cpu(), operator.longitude.cpu()], 1)
        every, home, count = where.unique(dim=0, return_inverse=True, return_counts=True)
        order = home.argsort(stable=True)
        slot = torch.arange(len(home)) - (count.cumsum(0) - count)[home[order]]
        rows = torch.full((len(every), int(count.max())), -1)
        rows[home[order], slot] = order
        unit = torch.eye(rows.shape[1]).expand(len(rows), -1, -1)
        return cls(rows, unit, every[:, 0], every[:, 1])

    def of(self, values: Tensor) -> Tensor:
        """(...,N) values as (...,S,k), 0 where there is no observation."""
        rows = self.rows.to(values.device)
        return torch.where(rows >= 0, values[..., rows.clamp(min=0)], 0.0)

    def back(self, values: Tensor) -> Tensor:
        """(...,S,k) values as (...,N): the inverse of ``of``."""
        rows = self.rows.to(values.device)
        there = rows >= 0
        found = values.new_empty(*values.shape[:-2], int(there.sum()))
        found[..., rows[there]] = values[..., there]
        return found

    def precision(self) -> Tensor:
        """(S,k,k) inverse covariances, 0 where there is no observation."""
        missing = (self.rows < 0).to(self.covariance)
        both = (1 - missing)[:, :, None] * (1 - missing)[:, None]
        return both * torch.linalg.inv(both * self.covariance + torch.diag_embed(missing))

    def with_levels(self, operator: Any, between: Tensor, own: Tensor, size: Tensor) -> Places:
        """With the covariance own + size size^T, times what channels have in common at a point.

        Args:
            operator: of linear observations, each of one channel mainly.
            between: (H,C,C) between the channels at a point of each row of the grid.
            own: (N,) variances of each alone.
            size: (N,) factor of each.
        """
        _, height, width = operator.shape
        heaviest = operator.weights.abs().argmax(1, keepdim=True)
        row = operator.index.gather(1, heaviest).squeeze(1) // width % height
        rows = self.rows.to(between.device)
        at = operator.channel[rows.clamp(min=0)]
        like = between[row[rows[:, 0]]]
        like = like.gather(1, at[:, :, None].expand(-1, -1, like.shape[2]))
        like = like.gather(2, at[:, None].expand(-1, at.shape[1], -1))
        size = self.of(size)
        whole = like * size[:, :, None] * size[:, None] + torch.diag_embed(self.of(own))
        return Places(self.rows, whole, self.latitude, self.longitude)
