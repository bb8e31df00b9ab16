"""CRPSCast: ConvCast with noise for an input, one application a member (after FGN).

    x_i(t + h) = x(t) + scale_c g(h) F(x(t), cond, h, z_i),    z_i ~ N(0, I_N)

Functional generative networks (Alet et al. 2025, arXiv 2506.10772): one vector z of N = 32 numbers
a member and step enters with the lead's embedding, which conditions every block, so that the noise
moves the whole field at once and its spatial structure is the network's. Trained on the CRPS of two
members, point by point (:mod:`gapzoo.training.crpscast`). Weights of a ConvCast of the same sizes
are a start; the noise's projection begins small, not zero, so that members differ at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gapzoo.core import GapzooError, MemberGenerator
from gapzoo.denoisers.backbone import ScalarEmbedding
from gapzoo.forecasters import FORECASTERS, NETWORKS
from gapzoo.forecasters.convcast import ConvCastForecaster, ConvCastNetwork

NOISE = 32
"""N, numbers that make a member."""
START = 0.2
"""Standard deviation that the noise first adds to each feature of the embedding."""


class NoisyEmbedding(ScalarEmbedding):
    """Embed a scalar with noise: (B, 1 + N) to (B, E).

    Args:
        size: E.
        noise: N.
    """

    def __init__(self, size: int, noise: int) -> None:
        super().__init__(size)
        self.noise = nn.Linear(noise, size, bias=False)
        nn.init.normal_(self.noise.weight, std=START * noise**-0.5)

    def forward(self, c: Tensor) -> Tensor:
        """See the class."""
        return super().forward(c[:, 0]) + self.noise(c[:, 1:])


class CRPSCastNetwork(ConvCastNetwork):
    """The network.

    Args:
        noise: N.
        embedding: E, size of the embedding of lead and noise.
        rest: arguments of :class:`ConvCastNetwork`.
    """

    forecaster = "crpscast"

    def __init__(self, *, noise: int = NOISE, embedding: int = 256, **rest: Any) -> None:
        super().__init__(embedding=embedding, **rest)
        if noise < 1:
            raise GapzooError(f"a noise of {noise} numbers; give 1 or more")
        self.noise = noise
        self.body.embed = NoisyEmbedding(embedding, noise)

    def forward(
        self, x: Tensor, hours: Tensor, cond: Tensor | None = None, z: Tensor | None = None
    ) -> Tensor:
        """See ConvCastNetwork.

        Args:
            x, hours, cond: see there.
            z: (B, N) standard normal numbers; None is zero, the middle of the members.
        """
        z = x.new_zeros(len(x), self.noise) if z is None else z
        if z.shape != (len(x), self.noise):
            raise GapzooError(f"noise of shape {tuple(z.shape)}; expected {(len(x), self.noise)}")
        given = torch.cat([hours[:, None] / 12 - 1.25, z.to(hours)], 1)
        return x + self.spread(hours) * self.body(x, given, cond)


@NETWORKS.register("crpscast_small")
def crpscast_small(channels: int, cond_channels: int = 0, **overrides: Any) -> CRPSCastNetwork:
    """4 M parameters, for the 64 x 32 world on one CPU core."""
    sizes: dict[str, Any] = {"widths": (64, 96, 128), "blocks": (2, 2, 2)}
    return CRPSCastNetwork(channels=channels, cond_channels=cond_channels, **(sizes | overrides))


@NETWORKS.register("crpscast_base")
def crpscast_base(channels: int, cond_channels: int = 0, **overrides: Any) -> CRPSCastNetwork:
    """20 M parameters, for GPUs."""
    sizes: dict[str, Any] = {"widths": (96, 192, 256), "blocks": (2, 3, 3), "embedding": 384}
    return CRPSCastNetwork(channels=channels, cond_channels=cond_channels, **(sizes | overrides))


@FORECASTERS.register("crpscast")
class CRPSCastForecaster(ConvCastForecaster):
    """Draws a member's step from its own generator; without one, z = 0.

    Args:
        world, network, autocast: see ConvCastForecaster.
    """

    network: CRPSCastNetwork
    stochastic = True

    def drawn(
        self, generators: Sequence[MemberGenerator | None], states: Sequence[Tensor]
    ) -> tuple[Tensor, ...]:
        """(B, N) noise of all members, new at every part of a step."""
        noise = self.network.noise
        pairs = zip(generators, states, strict=True)
        rows = [
            s.new_zeros(len(s), noise) if g is None else g.randn((len(s), noise)).to(s)
            for g, s in pairs
        ]
        return (torch.cat(rows),)
