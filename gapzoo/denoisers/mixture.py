"""Mixtures of experts, of two kinds that combine.

By token: the transformer, every second block's position-wise network being sparse experts
(:mod:`gapzoo.denoisers.experts`): more weights at the cost of few.

By noise level (Balaji et al. 2022, arXiv 2211.01324): each expert has a range of the
noise-to-signal ratio r, chosen by c_noise = log(r) / 4. A sample meets one of them at each step,
so that inference costs what one expert costs. They are the position-wise networks of the other
blocks, and attention is common to all levels: short training then teaches it with every sample.
Whole networks by noise level are :mod:`gapzoo.denoisers.stages`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from timm.layers import Mlp
from torch import Tensor, nn

from gapzoo.denoisers import DENOISERS
from gapzoo.denoisers.experts import SparseExperts
from gapzoo.denoisers.stages import coded, dispatch
from gapzoo.denoisers.transformer import Transformer

BALANCE_WEIGHT = 1e-2
Z_WEIGHT = 1e-3


class LevelExperts(nn.Module):
    """Position-wise networks (B, N, D) to the same, each for a range of noise levels.

    Args:
        size: D.
        count: number of ranges.
    """

    def __init__(self, size: int, count: int) -> None:
        super().__init__()
        self.networks = nn.ModuleList(Mlp(size, 4 * size) for _ in range(count))
        self.owner = torch.zeros(1, dtype=torch.long)
        """(B,) the range of each sample of the pass; set before it."""

    def forward(self, x: Tensor) -> Tensor:
        """Each sample through the network of its range."""
        return dispatch(self.owner, [network.__call__ for network in self.networks], x)


class Mixture(Transformer):
    """A transformer with sparse experts and, in the other blocks, experts by noise level.

    Args:
        experts: E, experts of a block.
        active: k, those that a token meets.
        edges: ascending noise-to-signal ratios r that part the ranges; none for one dense network.
        options: see :class:`Transformer`.
    """

    def __init__(
        self, *, experts: int = 8, active: int = 2, edges: Sequence[float] = (), **options: Any
    ) -> None:
        self.experts, self.active, self.levels = experts, active, len(edges) + 1
        super().__init__(**options)
        self.register_buffer("edges", coded(edges), False)

    def position_wise(self, layer: int) -> nn.Module:
        """Sparse experts in every second block; together, the k active ones are one dense one."""
        if layer % 2:
            hidden = 4 * self.size // self.active
            return SparseExperts(self.size, hidden, self.experts, self.active)
        return LevelExperts(self.size, self.levels)

    def network(self, x: Tensor, c_noise: Tensor) -> Tensor:
        """See :meth:`Backbone.network`."""
        owner = torch.bucketize(c_noise, self.get_buffer("edges"))
        for layer in self.modules():
            if isinstance(layer, LevelExperts):
                layer.owner = owner
        return super().network(x, c_noise)

    @property
    def idle_parameters(self) -> int:
        """See :class:`Backbone`."""
        sparse = sum(p.numel() for m in self.sparse for p in (m.inward, m.outward))
        levels = [m for m in self.modules() if isinstance(m, LevelExperts)]
        banks = sum(p.numel() for m in levels for p in m.parameters())
        unmet = sparse * (self.experts - self.active) // self.experts
        return unmet + banks * (self.levels - 1) // self.levels

    @property
    def sparse(self) -> list[SparseExperts]:
        """The layers of experts."""
        return [m for m in self.modules() if isinstance(m, SparseExperts)]

    def aux_loss(self) -> Tensor:
        """() weighted balance and z losses of the last pass, means over layers."""
        balance = torch.stack([layer.balance for layer in self.sparse]).mean()
        z = torch.stack([layer.z for layer in self.sparse]).mean()
        return BALANCE_WEIGHT * balance + Z_WEIGHT * z

    def expert_use(self) -> Tensor:
        """(layers, E) share of the last pass's choices that fell on each expert; even is 1 / E."""
        return torch.stack([layer.use for layer in self.sparse])


@DENOISERS.register("mixture_small")
def mixture_small(channels: int, cond_channels: int = 0, **overrides: Any) -> Mixture:
    """15 M parameters, 7 M active, for the 64 x 32 world on one CPU core."""
    sizes: dict[str, Any] = {"depth": 6, "edges": (0.2, 1.0)}
    return Mixture(channels=channels, cond_channels=cond_channels, **(sizes | overrides))


@DENOISERS.register("mixture_base")
def mixture_base(channels: int, cond_channels: int = 0, **overrides: Any) -> Mixture:
    """For an hour on a GPU."""
    sizes: dict[str, Any] = {"patch": 2, "size": 384, "depth": 10, "heads": 6, "width": 96}
    sizes |= {"edges": (0.2, 1.0)}
    return Mixture(channels=channels, cond_channels=cond_channels, **(sizes | overrides))


@DENOISERS.register("mixture_large")
def mixture_large(channels: int, cond_channels: int = 0, **overrides: Any) -> Mixture:
    """For several GPUs."""
    sizes: dict[str, Any] = {"patch": 2, "size": 512, "depth": 16, "heads": 8, "width": 128}
    sizes |= {"embedding": 256, "experts": 16, "edges": (0.2, 1.0)}
    return Mixture(channels=channels, cond_channels=cond_channels, **(sizes | overrides))
