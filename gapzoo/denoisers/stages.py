"""Stages of denoising: whole networks, each for a range of noise levels.

    F(x, c_noise, cond) = F_k(x, c_noise, cond),   k = number of edges below r

where r is the noise-to-signal ratio, c_noise = log(r) / 4. A sample meets one network at each
step, so that inference costs what one costs (experts by noise level: Balaji et al. 2022, arXiv
2211.01324; cBottle, Brenowitz et al. 2025, arXiv 2505.06474, switches checkpoints so). They may be
trained together, or alone and joined afterwards (``gapzoo join``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gapzoo.core import GapzooError
from gapzoo.denoisers import DENOISERS

EDGE = 4.0
"""Ratio at which the two networks of ``stages`` part where nothing else is said."""


class Stages(nn.Module):
    """Networks of one contract that share the noise levels among them.

    Args:
        channels, cond_channels: of every network.
        networks: from the lowest noise on, each its registered name, ``model``, and its own
            arguments.
        edges: ascending noise-to-signal ratios r that part the ranges, one fewer than networks; an
            edge itself belongs to the network below it.
    """

    def __init__(
        self,
        *,
        channels: int,
        cond_channels: int = 0,
        networks: Sequence[Mapping[str, Any]],
        edges: Sequence[float],
    ) -> None:
        super().__init__()
        if not edges:
            raise GapzooError("no edges; give positive, ascending noise ratios")
        if len(networks) != len(edges) + 1 or any("model" not in one for one in networks):
            raise GapzooError(
                f"{len(networks)} networks for {len(edges)} edges; give one more than edges, each "
                "with its 'model' and arguments"
            )
        sizes = {"channels": channels, "cond_channels": cond_channels}
        self.networks = nn.ModuleList(_built(one, sizes) for one in networks)
        self.multiple = math.lcm(*(int(getattr(n, "multiple", 1)) for n in self.networks))
        """Longitudes must be a multiple of this."""
        self.register_buffer("edges", coded(edges), False)
        self.visited: list[int] = []

    @property
    def idle_parameters(self) -> int:
        """Parameters that a sample leaves out in a pass, at the level where it meets most."""
        total = sum(p.numel() for p in self.networks.parameters())
        met = [_active(network) for network in self.networks]
        return total - max(met)

    def forward(self, x: Tensor, c_noise: Tensor, cond: Tensor | None = None) -> Tensor:
        """The contract (:mod:`gapzoo.denoisers.backbone`); rows of a mixed batch are split."""
        levels = c_noise.expand(len(x)).contiguous()
        owner = torch.bucketize(levels, self.get_buffer("edges"))
        self.visited = owner.unique().tolist()
        given = (x, levels) if cond is None else (x, levels, cond)
        return dispatch(owner, [network.__call__ for network in self.networks], *given)

    def aux_loss(self) -> Tensor:
        """() sum of the auxiliary losses of the networks that the last pass visited."""
        losses = [getattr(self.networks[number], "aux_loss", None) for number in self.visited]
        found = [loss() for loss in losses if loss is not None]
        return torch.stack(found).sum() if found else torch.zeros(())


def _built(one: Mapping[str, Any], sizes: dict[str, int]) -> nn.Module:
    arguments = {k: v for k, v in one.items() if k != "model"}
    return DENOISERS.build(one["model"], **sizes, **arguments)


def _active(network: nn.Module) -> int:
    count = sum(p.numel() for p in network.parameters())
    return count - int(getattr(network, "idle_parameters", 0))


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


@DENOISERS.register("stages")
def stages(
    channels: int,
    cond_channels: int = 0,
    networks: Sequence[Mapping[str, Any]] = ({"model": "unet_small"}, {"model": "unet_small"}),
    edges: Sequence[float] = (EDGE,),
) -> Stages:
    """Any networks, such as those that ``gapzoo join`` takes from two checkpoints."""
    sizes = {"channels": channels, "cond_channels": cond_channels}
    return Stages(**sizes, networks=networks, edges=edges)


@DENOISERS.register("unet_levels_small")
def unet_levels_small(
    channels: int,
    cond_channels: int = 0,
    of: str = "unet_small",
    edges: Sequence[float] = (0.5,),
    **options: Any,
) -> Stages:
    """Two small U-Nets, one below and one above r = 0.5: 8 M parameters, 4 M active."""
    sizes = {"channels": channels, "cond_channels": cond_channels}
    networks = [{"model": of, **options} for _ in range(len(edges) + 1)]
    return Stages(**sizes, networks=networks, edges=edges)
