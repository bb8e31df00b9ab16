"""Grid and areas, the variable table, normalisation, time, registry, errors."""

from gapzoo.core.channels import VARIABLES, Channel, Channels, Variable
from gapzoo.core.errors import GapzooError, nearest
from gapzoo.core.grid import Grid
from gapzoo.core.random import MemberGenerator
from gapzoo.core.registry import Registry

__all__ = [
    "VARIABLES",
    "Channel",
    "Channels",
    "GapzooError",
    "Grid",
    "MemberGenerator",
    "Registry",
    "Variable",
    "nearest",
]
