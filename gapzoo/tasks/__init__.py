"""The tasks: short loops around ``prior.given(observations, forecast, forcing)``."""

from gapzoo.tasks.sampling import Sampling

__all__ = ["Sampling"]
