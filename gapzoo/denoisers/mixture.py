"""Mixtures of experts, of two kinds that combine.

By token: the transformer, every second block's position-wise network being sparse experts
(:mod:`gapzoo.denoisers.experts`): more weights at the cost of few.

By noise level (Balaji et al. 2022, arXiv 2211.01324): whole networks, each for a range of the
noise-to-signal ratio r, chosen by c_noise = log(r) / 4. A sample meets one of them at each step,
so that inference costs what one network costs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
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


class Mixture(Transformer):
    """A transformer with sparse experts.

    Args:
        experts: E, experts of a block.
        active: k, those that a token meets.
        options: see :class:`Transformer`.
    """

    def __init__(self, *, experts: int = 8, active: int = 2, **options: Any) -> None:
        self.experts, self.active = experts, active
        super().__init__(**options)

    def position_wise(self, layer: int) -> nn.Module:
        """Sparse experts in every second block; together, the k active ones are one dense one."""
        if layer % 2 == 0:
            return Mlp(self.size, 4 * self.size)
        return SparseExperts(self.size, 4 * self.size // self.active, self.experts, self.active)

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
        if not edges or any(e <= 0 for e in edges) or sorted(set(edges)) != list(edges):
            raise GapzooError(f"edges {list(edges)}; give positive, ascending noise ratios")
        sizes = {"channels": channels, "cond_channels": cond_channels}
        networks = [DENOISERS.build(of, **sizes, **options) for _ in range(len(edges) + 1)]
        super().__init__(**sizes, multiple=networks[0].multiple)
        self.networks = nn.ModuleList(networks)
        self.register_buffer("edges", torch.tensor([math.log(e) / 4 for e in edges]), False)
        self.visited: list[int] = []

    def network(self, x: Tensor, c_noise: Tensor) -> Tensor:
        """See :meth:`Backbone.network`."""
        owner = torch.bucketize(c_noise, self.get_buffer("edges"))
        self.visited = owner.unique().tolist()
        if len(self.visited) == 1:
            return self.networks[self.visited[0]].network(x, c_noise)  # type: ignore[operator]
        rows = [(owner == number).nonzero().flatten() for number in self.visited]
        parts = [
            self.networks[number].network(x[r], c_noise[r])  # type: ignore[operator]
            for number, r in zip(self.visited, rows, strict=True)
        ]
        return torch.cat(parts)[torch.cat(rows).argsort()]

    def aux_loss(self) -> Tensor:
        """() sum of the auxiliary losses of the networks that the last pass visited."""
        visited = [self.networks[number] for number in self.visited]
        losses = [network.aux_loss() for network in visited if isinstance(network, Mixture)]
        return torch.stack(losses).sum() if losses else torch.zeros(())


@DENOISERS.register("mixture_small")
def mixture_small(channels: int, cond_channels: int = 0, **overrides: Any) -> Mixture:
    """16 M parameters, 9 M active, for the 64 x 32 world on one CPU core."""
    return Mixture(channels=channels, cond_channels=cond_channels, **overrides)


@DENOISERS.register("mixture_base")
def mixture_base(channels: int, cond_channels: int = 0, **overrides: Any) -> Mixture:
    """For an hour on a GPU."""
    sizes: dict[str, Any] = {"patch": 2, "size": 384, "depth": 10, "heads": 6, "width": 96}
    return Mixture(channels=channels, cond_channels=cond_channels, **(sizes | overrides))


@DENOISERS.register("mixture_large")
def mixture_large(channels: int, cond_channels: int = 0, **overrides: Any) -> Mixture:
    """For several GPUs."""
    sizes: dict[str, Any] = {"patch": 2, "size": 512, "depth": 16, "heads": 8, "width": 128}
    sizes |= {"embedding": 256, "experts": 16}
    return Mixture(channels=channels, cond_channels=cond_channels, **(sizes | overrides))


@DENOISERS.register("unet_levels_small")
def unet_levels_small(channels: int, cond_channels: int = 0, **overrides: Any) -> NoiseLevelExperts:
    """Two small U-Nets, one below and one above r = 0.5: 8 M parameters, 4 M active."""
    return NoiseLevelExperts(channels=channels, cond_channels=cond_channels, **overrides)


@DENOISERS.register("mixture_levels_small")
def mixture_levels_small(
    channels: int, cond_channels: int = 0, **overrides: Any
) -> NoiseLevelExperts:
    """Both kinds: two small mixtures, one below and one above r = 0.5."""
    sizes: dict[str, Any] = {"of": "mixture_small"}
    return NoiseLevelExperts(channels=channels, cond_channels=cond_channels, **(sizes | overrides))
