"""Backbones behind one contract; see :mod:`gapzoo.denoisers.backbone`.

    DENOISERS.build("unet_small", channels=33, cond_channels=7)

gives a network ``forward(x (B,C,H,W), c_noise (B,), cond (B,K,H,W) | None) -> (B,C,H,W)``.
"""

from gapzoo.core import Registry

DENOISERS = Registry("denoiser", "gapzoo.denoisers")

__all__ = ["DENOISERS"]
