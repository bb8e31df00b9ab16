"""Mixtures of experts, of two kinds that combine.

By token: the transformer, every second block's position-wise network being sparse experts
(:mod:`gapzoo.denoisers.experts`): more weights at the cost of few.

By noise level (Balaji et al. 2022, arXiv 2211.01324): each expert has a range of the
noise-to-signal ratio r, chosen by c_noise = log(r) / 4. A sample meets one of them at each step,
so that inference costs what one expert costs. In ``mixture_*`` they are the position-wise networks
of the other blocks, and attention is common to all levels: short training then teaches it with
every sample. In ``*_levels_*`` they are whole networks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from timm.layers import Mlp
from torch import Tensor, nn

from gapzoo.core import GapzooError
from gapzoo.denoisers import DENOISERS
from gapzoo.denoisers.backbone import Backbone
from gapzoo.denoisers.experts import SparseExperts
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


class NoiseLevelExperts(Backbone):
    """Networks that share the noise levels among them.

    Args:
        channels, cond_channels: see :class:`Backbone`.
        of: registered name of the networks.
        edges: ascending noise-to-signal ratios r that part the ranges, one fewer than networks.
        options: arguments of each network.
    """

    def __init__(
        self,
        *,
        channels: int,
        cond_channels: int = 0,
        of: str = "unet_small",
        edges: Sequence[float] = (0.5,),
        **options: Any,
    ) -> None:
        if not edges:
            raise GapzooError("no edges; give positive, ascending noise ratios")
        sizes = {"channels": channels, "cond_channels": cond_channels}
        networks = [DENOISERS.build(of, **sizes, **options) for _ in range(len(edges) + 1)]
        super().__init__(**sizes, multiple=networks[0].multiple)
        self.networks = nn.ModuleList(networks)
        self.register_buffer("edges", coded(edges), False)
        self.visited: list[int] = []

    @property
    def idle_parameters(self) -> int:
        """See :class:`Backbone`."""
        total = sum(p.numel() for p in self.networks.parameters())
        idle = [n.idle_parameters for n in self.networks if isinstance(n, Backbone)]
        return total - (total - sum(idle)) // len(self.networks)

    def network(self, x: Tensor, c_noise: Tensor) -> Tensor:
        """See :meth:`Backbone.network`."""
        owner = torch.bucketize(c_noise, self.get_buffer("edges"))
        self.visited = owner.unique().tolist()
        return dispatch(owner, [n.network for n in self.networks], x, c_noise)  # type: ignore[misc]

    def aux_loss(self) -> Tensor:
        """() sum of the auxiliary losses of the networks that the last pass visited."""
        visited = [self.networks[number] for number in self.visited]
        losses = [network.aux_loss() for network in visited if isinstance(network, Mixture)]
        return torch.stack(losses).sum() if losses else torch.zeros(())


def dispatch(owner: Tensor, networks: Sequence[Callable[..., Tensor]], *inputs: Tensor) -> Tensor:
    """Rows of the inputs through the networks that own them, back in their order.

    Args:
        owner: (B,) number of each row's network.
        networks: functions of the inputs.
        inputs: (B, ...) tensors.
    """
    visited = owner.unique().tolist()
    if len(visited) == 1:
        return networks[visited[0]](*inputs)
    rows = [(owner == number).nonzero().flatten() for number in visited]
    parts = [
        networks[number](*(x[r] for x in inputs)) for number, r in zip(visited, rows, strict=True)
    ]
    return torch.cat(parts)[torch.cat(rows).argsort()]


def coded(edges: Sequence[float]) -> Tensor:
    """Noise ratios as ``c_noise``; raises GapzooError where they don't ascend from above 0."""
    if any(e <= 0 for e in edges) or sorted(set(edges)) != list(edges):
        raise GapzooError(f"edges {list(edges)}; give positive, ascending noise ratios")
    return torch.tensor([math.log(e) / 4 for e in edges])


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


@DENOISERS.register("unet_levels_small")
def unet_levels_small(channels: int, cond_channels: int = 0, **overrides: Any) -> NoiseLevelExperts:
    """Two small U-Nets, one below and one above r = 0.5: 8 M parameters, 4 M active."""
    return NoiseLevelExperts(channels=channels, cond_channels=cond_channels, **overrides)
