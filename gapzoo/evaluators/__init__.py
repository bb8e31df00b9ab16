"""Scores of forecasts against a truth: streaming, additive, area-weighted, one family a file."""

from gapzoo.core import Registry

EVALUATORS = Registry("evaluator", "gapzoo.evaluators")
"""Every metric by name; a new file with ``@EVALUATORS.register(name)`` is found by itself."""

from gapzoo.evaluators.base import Evaluator  # noqa: E402 (metrics import EVALUATORS from here)

__all__ = ["EVALUATORS", "Evaluator"]
