"""DDIM (Song et al. 2021, arXiv 2010.02502, equation 12) and ancestral sampling (DDPM).

    x_s = alpha_s x_hat + sqrt(sigma_s^2 - tau^2) z_hat + tau z,   z ~ N(0, I)
    z_hat = (x_t - alpha_t x_hat) / sigma_t
    tau^2 = eta^2 sigma_s^2 (1 - r_s^2 / r_t^2)

eta 0 is Euler's step; eta 1 draws from q(x_s | x_t, x_hat) and is called ancestral.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from gapzoo.core import GapzooError, MemberGenerator
from gapzoo.diffusion.denoiser import Denoiser
from gapzoo.diffusion.samplers import SAMPLERS
from gapzoo.diffusion.samplers.base import Progress, Sampler


@SAMPLERS.register("ddim")
class DDIMSampler(Sampler):
    """One network evaluation a step, order 1, with noise of strength ``eta`` in [0, 1]."""

    def __init__(
        self,
        denoiser: Denoiser,
        steps: int = 32,
        progress: Progress | None = None,
        eta: float = 0.0,
    ) -> None:
        super().__init__(denoiser, steps, progress)
        if not 0.0 <= eta <= 1.0:
            raise GapzooError(f"eta is {eta:g}; it lies within 0 (no noise) to 1 (ancestral)")
        self.eta = eta

    def step(
        self, x_t: Tensor, t: Tensor, s: Tensor, generator: MemberGenerator, **cond: Any
    ) -> Tensor:
        """DDIM from ``t`` to ``s``; x_t (B,C,H,W)."""
        x, x_hat, _, r_t = self.predict(x_t, t, **cond)
        alpha_s, sigma_s = self.denoiser.schedule(s)
        tau = self.eta * sigma_s * (1 - (sigma_s / alpha_s / r_t) ** 2).sqrt()
        x_s = alpha_s * x_hat + (sigma_s**2 - tau**2).sqrt() * (x - x_hat) / r_t
        return x_s + tau * generator.randn(x_t.shape).to(x_t) if self.eta > 0 else x_s


@SAMPLERS.register("ancestral")
class AncestralSampler(DDIMSampler):
    """DDIM with eta 1 (Ho et al. 2020, arXiv 2006.11239)."""

    def __init__(
        self, denoiser: Denoiser, steps: int = 32, progress: Progress | None = None
    ) -> None:
        super().__init__(denoiser, steps, progress, eta=1.0)
