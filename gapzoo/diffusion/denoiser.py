"""Denoisers: from a noisy state to what is known of the clean one.

With ``x_t = alpha x + sigma z`` a denoiser gives the posterior p(x | x_t), at least its mean
x_hat = E[x | x_t]. Preconditioning (Karras et al. 2022, arXiv 2206.00364, table 1) turns a
network F into one, at the noise-to-signal ratio ``r = sigma / alpha`` of the rescaled state
``x_t / alpha``, and so for every schedule alike:

    x_hat = c_skip x_t / alpha + c_out F(c_in x_t / alpha, c_noise)
    c_skip = sd^2 / (r^2 + sd^2)           c_out = r sd / sqrt(r^2 + sd^2)
    c_in = 1 / sqrt(r^2 + sd^2)            c_noise = log(r) / 4

where sd (``sigma_data``) is the standard deviation of the data.
"""

from __future__ import annotations

import abc
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gapzoo.core import GapzooError
from gapzoo.diffusion.schedules import Schedule

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
        autocast: the type the backbone computes in, such as ``torch.bfloat16``; None is full.
    """

    def __init__(
        self,
        backbone: nn.Module,
        schedule: Schedule,
        sigma_data: float = 1.0,
        autocast: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if sigma_data <= 0:
            raise GapzooError(f"sigma_data is {sigma_data:g}; it must be positive")
        self.backbone, self.schedule = backbone, schedule
        self.sigma_data, self.autocast = sigma_data, autocast

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
        output = self._network(c_in * x, c_noise.flatten().expand(len(x)), **cond)
        return Posterior(c_skip * x + c_out * output)

    def _network(self, x: Tensor, c_noise: Tensor, cond: Tensor | None = None) -> Tensor:
        if cond is not None:
            cond = cond.to(x).expand(len(x), *cond.shape[1:])
        enabled = self.autocast is not None
        with torch.autocast(x.device.type, dtype=self.autocast or x.dtype, enabled=enabled):
            return self.backbone(x, c_noise, cond).to(x.dtype)
