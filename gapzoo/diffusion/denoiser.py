"""Denoisers: from a noisy state to what is known of the clean one.

With ``x_t = alpha x + sigma z`` a denoiser gives the posterior p(x | x_t), at least its mean
x_hat = E[x | x_t]. Preconditioning (Karras et al. 2022, arXiv 2206.00364, table 1) turns a
network F into one, at the noise-to-signal ratio ``r = sigma / alpha`` of the rescaled state
``x_t / alpha``, and so for every schedule alike:

    x_hat = c_skip x_t / alpha + c_out F(c_in x_t / alpha, c_noise)
    c_skip = sd^2 / (r^2 + sd^2)           c_out = r sd / sqrt(r^2 + sd^2)
    c_in = 1 / sqrt(r^2 + sd^2)            c_noise = log(r) / 4

where sd (``sigma_data``) is the standard deviation of the data.

With a climatological covariance L of the data (any CovarianceOperator) sd is known mode by mode,
and the skip connection becomes the Wiener filter, the best linear denoiser:

    x_hat = W x + c_out F((x - W x) / r, W x, c_noise),   W = L (L + r^2)^-1,   x = x_t / alpha
    c_out = sqrt( mean of r^2 L (L + r^2)^-1 over each channel )

so that a network that returns zero is already the Gaussian prior N(0, L), and training is about
what a Gaussian does not know. The atmosphere's spectrum spans orders of magnitude; a scalar sd
leaves all of that to the network.
"""

from __future__ import annotations

import abc
import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from gapzoo.core import GapzooError, MemberGenerator
from gapzoo.core.precision import autocast
from gapzoo.diffusion.covariance import DiagonalCovariance
from gapzoo.diffusion.modes import Blend, Modes, analysed, gridded
from gapzoo.diffusion.moments import SecondMoments
from gapzoo.diffusion.reference import Reference
from gapzoo.diffusion.schedules import Schedule
from gapzoo.diffusion.zonal import ZonalCovariance

if TYPE_CHECKING:
    from gapzoo.diffusion.once import Once

LOWEST_RATIO = 1e-4
"""Floor of the ratio inside ``c_noise``, so that time 0 is finite."""


@dataclass(frozen=True)
class Posterior:
    """What is known of the clean state given a noisy one.

    Args:
        mean: (B,C,H,W) posterior mean.
        covariance: where known, v (B,C,H,W) -> Cov[x | x_t] v (B,C,H,W).
    """

    mean: Tensor
    covariance: Callable[[Tensor], Tensor] | None = None


class Denoiser(nn.Module, abc.ABC):
    """Anything that gives p(x | x_t): networks, exact Gaussians, guided denoisers."""

    schedule: Schedule
    start: tuple[Tensor, float] | None = None
    """Where sampling starts: a state (B or 1,C,H,W) and the time to which it is re-noised."""

    @abc.abstractmethod
    def forward(self, x_t: Tensor, t: Tensor, **cond: Any) -> Posterior:
        """Posterior of the clean state.

        Args:
            x_t: (B,C,H,W) noisy state.
            t: () or (B,) times in [0, 1].
            cond: what the prior is conditioned on, at least ``cond`` (B or 1,K,H,W) or None.
        """

    def draw(self, x_t: Tensor, t: Tensor, generator: MemberGenerator, **cond: Any) -> Tensor:
        """A clean state (B,C,H,W) given the noisy one, its law taken for Gaussian.

        Around the posterior mean, with the error that the reference N(m, C) has at the ratio r,
        r^2 C (C + r^2)^-1.

        Args:
            x_t, t, cond: see ``forward``.
            generator: one random stream a member.

        Raises:
            GapzooError: where no covariance is at hand.
        """
        found = self.reference()
        if found is None or not found.complete:
            raise GapzooError(
                f"{type(self).__name__} knows means, no covariance to draw states with; take "
                "guidance 'wiener' around a prior that has a climatology, or another sampler than "
                "'decoupled'"
            )
        alpha, sigma = self.scales(x_t, t)
        noise = generator.randn(x_t.shape).to(x_t)
        apart = found.filter(noise, error_std, (sigma / alpha).flatten())
        return self(x_t, t, **cond).mean + apart

    @property
    def modal(self) -> ZonalCovariance | None:
        """The covariance in whose modes ``denoised`` works; None where there is none."""
        return None

    def denoised(self, x: Modes, ratio: Tensor, cond: Tensor | None = None) -> Modes:
        """Posterior mean of the rescaled state x = x_t / alpha, both in modes.

        Args:
            x: in the modes of ``modal``.
            ratio: () noise-to-signal ratio.
            cond: see ``forward``.

        Raises:
            GapzooError: where ``modal`` is None.
        """
        raise GapzooError(f"{type(self).__name__} knows no modes; give it states on the grid")

    def at_once(self) -> Callable[[Tensor | Blend, float], Once] | None:
        """What one evaluation of a draw of the reference's marginal has and gives, in modes.

        Returns:
            A function of standard noise (B,C,H,W), or of what blends to it, and of the marginal's
            noise-to-signal ratio; None where not all that happens is a gain on modes.
        """
        return None

    def reference(self) -> Reference | None:
        """The Gaussian next to what it denoises, for samplers; None where none is known."""
        return None

    def begin(self, noise: Tensor, t: Tensor) -> Tensor:
        """Where sampling starts without a state: ``sigma z`` (B,C,H,W) of standard noise z at t."""
        return self.schedule(t)[1].to(noise) * noise

    def finish(self, x: Tensor) -> Tensor:
        """What a sampled state (B,C,H,W) is taken to: its projection onto the data's support."""
        return x

    def scales(self, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """(alpha, sigma) shaped (B,1,1,1) (or (1,1,1,1) for scalar t), typed as ``x_t``."""
        alpha, sigma = self.schedule(t.to(x_t).reshape(-1, *[1] * (x_t.ndim - 1)))
        return alpha, sigma


class PreconditionedDenoiser(Denoiser):
    """A backbone made a denoiser for any schedule.

    Only the backbone runs in low precision (``autocast``); everything outside it keeps the type
    of ``x_t``.

    Args:
        backbone: ``forward(x (B,C,H,W), c_noise (B,), cond (B,K,H,W) | None) -> (B,C,H,W)``.
        schedule: the noise schedule.
        sigma_data: standard deviation of the normalised states.
        autocast: the type the backbone computes in where the device has it
            (``gapzoo.core.precision``), such as ``torch.bfloat16``; None is full.
        climatology: covariance of the normalised states. With it the backbone's condition has C
            more channels, W x, behind the K given ones.
        cond_channels: K, needed with a climatology where ``cond`` may be None.
        shaped: scale the network's output mode by mode, not channel by channel.
        support: projects states (B,C,H,W) onto the linear space that all data lie in, such as
            ``gapzoo.core.truncation.Truncated``; sampled states are projected at the end.
        moments: what its output lacks of its input, mode by mode of the climatology; it is added.
    """

    def __init__(
        self,
        backbone: nn.Module,
        schedule: Schedule,
        sigma_data: float = 1.0,
        autocast: torch.dtype | None = None,
        climatology: ZonalCovariance | None = None,
        cond_channels: int = 0,
        shaped: bool = False,
        support: nn.Module | None = None,
        moments: SecondMoments | None = None,
    ) -> None:
        super().__init__()
        if sigma_data <= 0:
            raise GapzooError(f"sigma_data is {sigma_data:g}; it must be positive")
        self.backbone, self.schedule = backbone, schedule
        self.sigma_data, self.autocast = sigma_data, autocast
        self.climatology, self.cond_channels = climatology, cond_channels
        self.shaped, self.support, self.moments = shaped, support, moments
        self.learned = 1.0

    def with_moments(self, moments: SecondMoments | None) -> PreconditionedDenoiser:
        """The same network with other second moments; None leaves its output as it is."""
        other = copy.copy(self)
        other.moments = moments
        return other

    def with_climatology(self, climatology: ZonalCovariance) -> PreconditionedDenoiser:
        """The same network around another covariance, near the one that it was trained around."""
        other = copy.copy(self)
        other.climatology = climatology
        return other

    def with_learned(self, share: float) -> PreconditionedDenoiser:
        """The same with a share of what the network adds to the Wiener filter; it rests at 0.

        Raises:
            GapzooError: without a climatology to fall back on; for a share outside 0 to 1.
        """
        if self.climatology is None or not 0 <= share <= 1:
            raise GapzooError(
                f"learned {share}: give 0 to 1, and a prior around its climatology, which is left "
                "where the network is not asked"
            )
        other = copy.copy(self)
        other.learned = share
        return other

    def coefficients(self, ratio: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(c_skip, c_out, c_in, c_noise), each shaped as ``ratio``."""
        total = ratio**2 + self.sigma_data**2
        c_skip, c_out = self.sigma_data**2 / total, ratio * self.sigma_data / total.sqrt()
        return c_skip, c_out, 1 / total.sqrt(), ratio.clamp(min=LOWEST_RATIO).log() / 4

    def forward(self, x_t: Tensor, t: Tensor, **cond: Any) -> Posterior:
        """Posterior mean by the network; ``cond=`` (B or 1,K,H,W) or None is handed to it."""
        alpha, sigma = self.scales(x_t, t)
        c_skip, c_out, c_in, c_noise = self.coefficients(sigma / alpha)
        x = x_t / alpha
        if self.climatology is not None:
            return self._around_wiener(x, sigma / alpha, c_noise, **cond)
        output = self._network(c_in * x, c_noise.flatten().expand(len(x)), **cond)
        return Posterior(c_skip * x + c_out * output)

    def _around_wiener(
        self, x: Tensor, ratio: Tensor, c_noise: Tensor, cond: Tensor | None = None
    ) -> Posterior:
        assert self.climatology is not None
        found = analysed(self.climatology, x)[0]
        return Posterior(self._in_modes(found, x, ratio, c_noise, cond).grid())

    @property
    def modal(self) -> ZonalCovariance | None:
        """Its climatology."""
        return self.climatology

    def denoised(self, x: Modes, ratio: Tensor, cond: Tensor | None = None) -> Modes:
        """See Denoiser."""
        if self.climatology is None:
            return super().denoised(x, ratio, cond)
        ratio = ratio.reshape(1, 1, 1, 1)
        return self._in_modes(x, None, ratio, self.coefficients(ratio)[3], cond)

    def _in_modes(
        self,
        x: Modes,
        on_grid: Tensor | None,
        ratio: Tensor,
        c_noise: Tensor,
        cond: Tensor | None,
    ) -> Modes:
        """The Wiener filter and what network and second moments add to it."""
        assert self.climatology is not None
        own, levels = self.climatology, ratio.flatten()
        linear = x.times(own.gains(lambda b, r: b / (b + r**2), levels))
        if not self.learned:
            return linear
        first, whole = (linear.grid(), on_grid) if on_grid is not None else gridded(linear, x)
        output = self._beside(first, whole, ratio, c_noise, cond)
        added = analysed(own, output if self.shaped else self.error_scale(ratio) * output)[0]
        if self.shaped:
            added = added.times(own.gains(error_std, levels))
        if self.moments is not None:
            added = added + x.times(own.gains(self.moments, levels))
        return linear + self.learned * added

    def _beside(
        self, linear: Tensor, x: Tensor, ratio: Tensor, c_noise: Tensor, cond: Tensor | None
    ) -> Tensor:
        """What the network says of x beside W x (B,C,H,W)."""
        if cond is None:
            cond = x.new_zeros(len(x), self.cond_channels, *x.shape[2:])
        both = torch.cat([cond.to(x).expand(len(x), *cond.shape[1:]), linear], 1)
        left = (x - linear) / ratio.clamp(min=LOWEST_RATIO)
        return self._network(left, c_noise.flatten().expand(len(x)), both)

    def reference(self) -> Reference:
        """N(0, L), or white noise of the standard deviation sd."""
        own = self.climatology or DiagonalCovariance(self.sigma_data**2)
        return Reference(torch.zeros(()), own)

    def begin(self, noise: Tensor, t: Tensor) -> Tensor:
        """A draw of N(0, alpha^2 L + sigma^2): the largest scales are no noise at time 1 yet."""
        if self.climatology is None:
            return super().begin(noise, t)
        return self.reference().begin(noise, *self.schedule(t))

    def finish(self, x: Tensor) -> Tensor:
        """On the support, where there is one."""
        return x if self.support is None else self.support(x)

    def error_scale(self, ratio: Tensor) -> Tensor:
        """What errors are measured in at ratios (S,1,1,1): c_out, (S,1 or C,1,1)."""
        if self.climatology is None:
            return self.coefficients(ratio)[1]
        variance = self.climatology.point_variance(
            lambda b, r: r**2 * b / (b + r**2), ratio.flatten()
        )
        return variance.sqrt()[:, :, None, None].to(ratio)

    def _network(self, x: Tensor, c_noise: Tensor, cond: Tensor | None = None) -> Tensor:
        if cond is not None:
            cond = cond.to(x).expand(len(x), *cond.shape[1:])
        with autocast(x.device, self.autocast):
            return self.backbone(x, c_noise, cond).to(x.dtype)


def error_std(variance: Tensor, ratio: Tensor) -> Tensor:
    """Standard deviation of what a Gaussian mode of this variance leaves unknown at a ratio."""
    return ratio * (variance / (variance + ratio**2)).sqrt()
