"""The archive, the sources that fill it, forcings, the data modules, observations."""

from gapzoo.core import Registry

SOURCES = Registry("source", "gapzoo.data.sources")
"""What can fill an archive; each entry builds a ``Source`` (gapzoo.data.build)."""
