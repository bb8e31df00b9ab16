"""gapzoo: generative assimilation and prediction for weather and climate (arXiv 2503.03038)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from gapzoo.checkpoint import load
    from gapzoo.evaluators.entry import evaluate
    from gapzoo.listing import list_models

_ENTRIES = {
    "load": "gapzoo.checkpoint",
    "list_models": "gapzoo.listing",
    "evaluate": "gapzoo.evaluators.entry",
}
__all__ = ["evaluate", "list_models", "load"]


def __getattr__(name: str) -> Any:
    """Import an entry point on first use, so that ``import gapzoo`` is instant."""
    if name not in _ENTRIES:
        raise AttributeError(f"module 'gapzoo' has no attribute '{name}'")
    import importlib

    return getattr(importlib.import_module(_ENTRIES[name]), name)
