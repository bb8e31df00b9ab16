"""Run a protocol for an entry, store the row, print the table.

A protocol (evaluation/protocols/*.yaml) fixes everything but the method; an entry is a method with
its options; a row (evaluation/leaderboard/*.json) is an entry's scores under a protocol with the
provenance of both. Rows of unlike protocols are never put in one table.
"""

from gapzoo.core import Registry

TRACKS = Registry("track", "gapzoo.leaderboard.tracks")
"""How each kind of protocol is run: name to ``run(protocol, entry, archive, ...) -> scores``."""
