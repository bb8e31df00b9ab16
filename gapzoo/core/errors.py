"""Errors that a user can act on: each says what was wrong, where, and the fix."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class GapzooError(ValueError):
    """Bad input. The command line prints its message as one line and exits with code 2."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a hint such as ``did you mean 'heun'?`` or the list of what is known."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    if close:
        return f"did you mean '{close[0]}'?"
    return f"known: {', '.join(names) or 'none'}"
