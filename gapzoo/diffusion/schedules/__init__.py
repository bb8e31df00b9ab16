"""Noise schedules, one a file: how much signal and noise there is at each time."""

from gapzoo.core import Registry

SCHEDULES = Registry("schedule", "gapzoo.diffusion.schedules")

from gapzoo.diffusion.schedules.base import Schedule  # noqa: E402

__all__ = ["SCHEDULES", "Schedule"]
