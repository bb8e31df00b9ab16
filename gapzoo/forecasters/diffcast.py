"""DiffCast: draws the change from a denoiser that is conditioned on the state (after GenCast).

    x(t + h) = x(t) + scale_c g(h) r,    r ~ p(r | x(t), cond, h)

GenCast (Price et al. 2025, arXiv 2312.15796): a diffusion model of the normalised change, its
network given the state before, trained as a denoiser (:mod:`gapzoo.training.diffcast`) and sampled
by DPM-Solver++. scale_c and g are ConvCast's, so that r has unit variance at every lead and the
scalar preconditioning of EDM fits; the U-Net's condition is [x(t), cond, h / 24].
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from gapzoo.core import GapzooError, MemberGenerator
from gapzoo.diffusion.denoiser import PreconditionedDenoiser
from gapzoo.diffusion.samplers import SAMPLERS
from gapzoo.diffusion.schedules.edm import EDMSchedule
from gapzoo.forecasters import FORECASTERS, NETWORKS
from gapzoo.forecasters.convcast import LONGEST, ConvCastForecaster, ConvCastNetwork

SCHEDULE = EDMSchedule(sigma_min=0.02, sigma_max=20.0)


class DiffCastNetwork(ConvCastNetwork):
    """The network.

    Args:
        channels: C, channels of the state.
        cond_channels: K, channels of the condition.
        steps: of the sampler, one evaluation each.
        rest: arguments of :class:`ConvCastNetwork`.
    """

    forecaster = "diffcast"

    def __init__(
        self, *, channels: int, cond_channels: int = 0, steps: int = 12, **rest: Any
    ) -> None:
        if steps < 1:
            raise GapzooError(f"{steps} sampler steps; give 1 or more")
        super().__init__(channels=channels, cond_channels=channels + cond_channels + 1, **rest)
        self.steps, self.cond_channels = steps, cond_channels

    @property
    def denoiser(self) -> PreconditionedDenoiser:
        """Of r, under ``cond=given(...)``."""
        return PreconditionedDenoiser(self.body, SCHEDULE)

    def given(self, x: Tensor, hours: Tensor, cond: Tensor | None = None) -> Tensor:
        """(B, C + K + 1, H, W): what the change is conditioned on; arguments as of ``forward``."""
        if cond is None:
            cond = x.new_zeros(len(x), self.cond_channels, *x.shape[2:])
        lead = (hours / LONGEST).to(x)[:, None, None, None].expand(-1, 1, *x.shape[2:])
        return torch.cat([x, cond.to(x), lead], 1)

    def forward(
        self, x: Tensor, hours: Tensor, cond: Tensor | None = None, z: Tensor | None = None
    ) -> Tensor:
        """See ConvCastNetwork.

        Args:
            x, hours, cond: see there.
            z: (B, C, H, W) standard normal numbers, one state a draw of them; None is the mean
                over all draws, which takes one evaluation.
        """
        denoiser, cond = self.denoiser, self.given(x, hours, cond)
        if z is None:
            change = denoiser(torch.zeros_like(x), x.new_ones(()), cond=cond).mean
        else:
            change = self._draw(denoiser, z, cond)
        return x + self.spread(hours) * change

    def _draw(self, denoiser: PreconditionedDenoiser, z: Tensor, cond: Tensor) -> Tensor:
        sampler = SAMPLERS.build("dpmpp_2m", denoiser=denoiser, steps=self.steps)
        times = SCHEDULE.times(self.steps).to(z)
        unused = MemberGenerator(0, len(z))  # the sampler is deterministic
        return sampler.carry(denoiser.begin(z, times[0]), times, unused, cond=cond)


@NETWORKS.register("diffcast_small")
def diffcast_small(channels: int, cond_channels: int = 0, **overrides: Any) -> DiffCastNetwork:
    """4 M parameters, for the 64 x 32 world on one CPU core."""
    sizes: dict[str, Any] = {"widths": (64, 96, 128), "blocks": (2, 2, 2)}
    return DiffCastNetwork(channels=channels, cond_channels=cond_channels, **(sizes | overrides))


@NETWORKS.register("diffcast_base")
def diffcast_base(channels: int, cond_channels: int = 0, **overrides: Any) -> DiffCastNetwork:
    """20 M parameters, for GPUs."""
    sizes: dict[str, Any] = {"widths": (96, 192, 256), "blocks": (2, 3, 3), "embedding": 384}
    return DiffCastNetwork(channels=channels, cond_channels=cond_channels, **(sizes | overrides))


@FORECASTERS.register("diffcast")
class DiffCastForecaster(ConvCastForecaster):
    """Draws a member's step from its own generator; without one, the mean.

    Args:
        world, network, autocast: see ConvCastForecaster.
    """

    network: DiffCastNetwork
    stochastic = True

    def drawn(
        self, generators: Sequence[MemberGenerator | None], states: Sequence[Tensor]
    ) -> tuple[Tensor, ...]:
        """(B, C, H, W) noise of all members, new at every part of a step."""
        known = [g for g in generators if g is not None]
        if not known:
            return ()
        if len(known) < len(generators):
            raise GapzooError("some initial times have a generator, some none; give all or none")
        pairs = zip(known, states, strict=True)
        return (torch.cat([g.randn(s.shape).to(s) for g, s in pairs]),)
