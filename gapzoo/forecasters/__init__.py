"""What carries a state forward: networks, numerical models, persistence, climatology.

Every forecaster is built as ``FORECASTERS.build(name, world=world, ...)``.
"""

from gapzoo.core import Registry

NETWORKS = Registry("forecasting network", "gapzoo.forecasters")
FORECASTERS = Registry("forecaster", "gapzoo.forecasters")
TRAINED = ("convcast", "crpscast", "diffcast")
"""Forecasters that are made of a checkpoint."""

from gapzoo.forecasters.base import Forecaster  # noqa: E402


def needs_checkpoint(name: str) -> bool:
    """Whether a name in a recipe or a command is a checkpoint's, not a forecaster of its own."""
    return name not in FORECASTERS or name in TRAINED


__all__ = ["FORECASTERS", "NETWORKS", "TRAINED", "Forecaster", "needs_checkpoint"]
