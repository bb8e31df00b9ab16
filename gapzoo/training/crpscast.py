"""Train CRPSCast: the weighted fair CRPS of two members, in units of the typical change.

    loss = E[ mean_w (|x_1 - y| + |x_2 - y| - |x_1 - x_2|) / (2 scale_c g(h)) ]

with x_i = f(x, h, z_i) and y = x(t + h): fair (its expectation is least where members and truth are
of one distribution, Ferro 2014), with the fewest members that have a spread, as in FGN (Alet et al.
2025, arXiv 2506.10772). Persistence has a loss near 0.8. Batches are those of
:mod:`gapzoo.training.convcast`.

Point by point the loss is blind to what points have in common: a network whose members differ by
one number on each latitude circle, five times as far as truth and forecast do, has the spread that
it asks for. So half of the loss can be the same CRPS of the first ``waves`` Fourier coefficients
along the circles (real and imaginary parts, of an orthonormal transform, so that errors without
correlation count alike in both halves; a spectral CRPS as in FourCastNet 3, arXiv 2507.12144).
And half of what is then the loss can be the same CRPS of coefficients along the climate's leading
modes (:mod:`gapzoo.training.leading`), which see what latitudes and channels have in common.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from gapzoo.core import GapzooError
from gapzoo.diffusion import LossValue
from gapzoo.evaluators import spectra
from gapzoo.forecasters.convcast import growth
from gapzoo.training.convcast import LEADS, ConvCast
from gapzoo.training.leading import LeadingModes
from gapzoo.training.optimise import generator_for

MEMBERS = 2
WAVES = 0.5
"""Share of the coefficients in the loss, where they have one."""
MODES = 0.5
"""Share of the leading modes in the loss, where they have one."""


def pair_crps(pair: Tensor, truth: Tensor) -> Tensor:
    """Fair CRPS of two members (2, ...) at each point of the truth (...); differentiable."""
    first, second = pair
    return ((first - truth).abs() + (second - truth).abs() - (first - second).abs()) / 2


def coefficients(x: Tensor, waves: int) -> Tensor:
    """(..., W) values on circles as (..., 2 waves - 1): wavenumber 0, then cosines and sines.

    Orthonormal: independent values of unit variance give coefficients of unit variance.

    Raises:
        GapzooError: for none, or more waves than a circle of W points carries.
    """
    if not 0 < waves <= x.shape[-1] // 2:
        raise GapzooError(f"{waves} waves on {x.shape[-1]} points; give 1 to {x.shape[-1] // 2}")
    found = spectra.coefficients(x)[..., :waves] * x.shape[-1] ** 0.5
    return torch.cat([found.real, found.imag[..., 1:]], -1).float()


class CRPSCast(ConvCast):
    """A registered network that takes noise, and its training.

    Args:
        name: the network's registered name.
        waves: zonal wavenumbers, from 0 on, whose coefficients have a share of the loss; 0 is none.
        leading: modes whose coefficients have one; None is none.
        options: see :class:`ConvCast`.

    Raises:
        GapzooError: for a network that takes no noise.
    """

    def __init__(
        self,
        name: str = "crpscast_small",
        *,
        waves: int = 0,
        leading: LeadingModes | None = None,
        **options: Any,
    ) -> None:
        super().__init__(name, **options)
        if not hasattr(self.network, "noise"):
            raise GapzooError(f"network '{name}' takes no noise; try crpscast_small")
        self.waves, self.leading = waves, leading

    def noise(self, batch: Mapping[str, Tensor], *keys: object) -> tuple[Tensor, ...]:
        """(2, B, N) standard normal numbers; processes take alternate rows of one whole batch."""
        rank, size = self.share(keys)
        generator = generator_for(self.seed, *keys, device=self.device)
        shape = (MEMBERS, len(batch["state"]) * size, self.network.noise)
        return (torch.randn(shape, generator=generator, device=self.device)[:, rank::size],)

    def loss(self, network: Any, batch: Mapping[str, Tensor], *noise: Tensor) -> LossValue:
        """The loss of a batch and its noise (2, B, N), its ``ratio`` being the lead in hours."""
        hours, cond = batch["hours"].float(), batch.get("cond")
        pair = self._pair(network, batch["state"], hours, cond, *noise)
        losses = self.each(self._points(pair, batch["target"], network.spread(hours)))
        if self.leading is not None:
            along = pair_crps(self.leading(pair), self.leading(batch["target"])).mean(-1)
            losses = torch.lerp(losses, along / growth(hours, network.hours), MODES)
        return LossValue(losses.mean(), losses.detach(), hours)

    def _points(self, pair: Tensor, truth: Tensor, spread: Tensor) -> Tensor:
        """(B,C,H,W) the loss at each point, with the waves' share."""
        pair, truth = pair / spread, truth / spread
        points = pair_crps(pair, truth)
        if not self.waves:
            return points
        both = pair_crps(coefficients(pair, self.waves), coefficients(truth, self.waves))
        return torch.lerp(points, both.mean(-1, keepdim=True).to(points), WAVES)

    def example(self, state: Tensor, cond: Tensor) -> Tensor:
        """Both members, as training computes them."""
        z = state.new_zeros(MEMBERS, len(state), self.network.noise)
        return self._pair(self.network, state, torch.full((len(state),), LEADS[0]), cond, z)

    def forward(
        self, x: Tensor, hours: Tensor, cond: Tensor | None = None, z: Tensor | None = None
    ) -> Tensor:
        """The averaged network's forecast (B,C,H,W) by the noise (B,N); None is zero."""
        drawn = () if z is None else (z,)
        return self._forecast(self.averaged, x, hours, cond, *drawn)

    def _pair(
        self, network: nn.Module, x: Tensor, hours: Tensor, cond: Tensor | None, z: Tensor
    ) -> Tensor:
        """(2,B,C,H,W): two members of each state in one batch."""
        cond = None if cond is None else cond.repeat(MEMBERS, 1, 1, 1)
        both = x.repeat(MEMBERS, 1, 1, 1)
        out = self._forecast(network, both, hours.repeat(MEMBERS), cond, z.flatten(0, 1))
        return out.unflatten(0, (MEMBERS, -1))
