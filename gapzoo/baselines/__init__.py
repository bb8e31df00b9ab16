"""What GAP must beat: optimal interpolation, LETKF, EnKF, 3D-Var, climatology.

All work on states (...,C,H,W) in whatever units the operator they are handed takes; normalised
states (``operator.scaled``) are the better choice.
"""

from gapzoo.core import Registry

BASELINES = Registry("baseline", "gapzoo.baselines")
"""Assimilation methods by name."""

__all__ = ["BASELINES"]
