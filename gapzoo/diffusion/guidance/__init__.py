"""Guidance, one method a file: a denoiser under constraints, which is again a denoiser."""

from gapzoo.core import Registry

GUIDANCE = Registry("guidance", "gapzoo.diffusion.guidance")

from gapzoo.diffusion.guidance.base import Guidance  # noqa: E402
from gapzoo.diffusion.guidance.constraint import GaussianConstraint, Identity  # noqa: E402

__all__ = ["GUIDANCE", "GaussianConstraint", "Guidance", "Identity"]
