"""What carries a state forward: networks, numerical models, persistence, climatology.

Every forecaster is built as ``FORECASTERS.build(name, world=world, ...)``.
"""

from gapzoo.core import Registry

NETWORKS = Registry("forecasting network", "gapzoo.forecasters")
FORECASTERS = Registry("forecaster", "gapzoo.forecasters")
TRAINED = ("convcast", "crpscast")
"""Forecasters that are made of a checkpoint."""

from gapzoo.forecasters.base import Forecaster  # noqa: E402

__all__ = ["FORECASTERS", "NETWORKS", "TRAINED", "Forecaster"]
