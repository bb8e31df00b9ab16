"""One evaluation under a forecast, mode by mode.

Under f ~ N(x, P) alone, with the prior's N(0, L) in the same modes, all that a single evaluation of
a guided denoiser does but for the network is a gain on modes: the reference N(m, C) and a draw of
its marginal at the noise-to-signal ratio r, x_r = m + d (gapzoo.diffusion.reference); what of f
makes x_r less noisy (gapzoo.diffusion.guidance.forecast), and what is left of f for guidance
(gapzoo.diffusion.guidance.wiener). So a state meets the modes' vectors four times, not twice a
filter; noise and forecast that are sums of filtered states themselves (gapzoo.diffusion.modes)
meet them no more often. The numbers are those of sampler and guidance, to rounding.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from gapzoo.diffusion.denoiser import Denoiser
from gapzoo.diffusion.guidance.constraint import GaussianConstraint, Identity, ModalConstraint
from gapzoo.diffusion.guidance.forecast import SHARE
from gapzoo.diffusion.modes import Blend, Modes, blended
from gapzoo.diffusion.zonal import ZonalCovariance


@dataclass(frozen=True)
class Once:
    """What one evaluation had and gave.

    Args:
        variance: C (len(eigenvalues),).
        mean: m.
        apart: d.
        unknown: e = x_hat - m - C (C + r^2)^-1 d.
    """

    variance: Tensor
    mean: Modes
    apart: Modes
    unknown: Modes


def modal(denoiser: Denoiser, constraints: list[GaussianConstraint]) -> ZonalCovariance | None:
    """L, where ``evaluated`` knows what to do: under one forecast in the denoiser's own modes."""
    own = denoiser.modal
    if own is None or len(constraints) != 1:
        return None
    (only,) = constraints
    whole = isinstance(only.operator, Identity)
    return own if whole and own.same_basis(only.noise) else None


def evaluated(
    denoiser: Denoiser,
    own: ZonalCovariance,
    forecast: GaussianConstraint,
    noise: Tensor | Blend,
    r: float,
) -> Once:
    """One evaluation of a denoiser under a forecast.

    Args:
        denoiser: the prior, its forcing bound.
        own: L.
        forecast: in the modes of L.
        noise: standard (B,C,H,W), or what blends to it.
        r: noise-to-signal ratio.
    """
    like = noise.parts[0][0] if isinstance(noise, Blend) else noise
    level, error = (c.eigenvalues.to(like) for c in (own, forecast.noise))
    told = forecast.blend if isinstance(forecast, ModalConstraint) else forecast.y
    f, z = blended(own, told.to(like), noise)
    share = level / (level + error)
    variance = share * error
    mean, apart = f.times(share), z.times((variance + r**2).sqrt())
    b = SHARE / error.max()
    less = 1 / (1 + b * r**2)
    absorbed, lower = less * (mean + apart + b * r**2 * f), r * less.sqrt()
    found = denoiser.denoised(absorbed, lower)
    left = lower**2 * level / (level + lower**2)
    rest = error / (1 - b * error)
    guided = found + (f - found).times(left / (left + rest))
    unknown = guided - mean - apart.times(variance / (variance + r**2))
    return Once(variance, mean, apart, unknown)
