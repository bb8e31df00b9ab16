"""Samplers, one a file: from noise to states, through any denoiser."""

from gapzoo.core import Registry

SAMPLERS = Registry("sampler", "gapzoo.diffusion.samplers")

from gapzoo.diffusion.samplers.base import Sampler  # noqa: E402

__all__ = ["SAMPLERS", "Sampler"]
