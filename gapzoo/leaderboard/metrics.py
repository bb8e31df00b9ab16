"""What rows' scores are called, which way is better, and in what they are measured.

A score v is ranked by how bad it is,

    lower    v
    higher  -v
    near     |v - ideal|, of a ratio (ideal 1) |log v|

and not at all where nothing is said. Tracks bring scores of their own in ``row["metrics"]``, each
as the keyword arguments of ``Metric``, so that a new track edits no list.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from gapzoo.core import GapzooError, nearest

WAYS = ("lower", "higher", "near", "")
FIELD = "field"
"""Units of a score that has those of the field it is of, such as an RMSE."""


@dataclass(frozen=True)
class Metric:
    """A score of rows.

    Args:
        title: what readers call it.
        better: ``lower``, ``higher``, ``near`` (its ideal), or empty where it ranks nothing.
        ideal: the value of a perfect row, drawn as a guide; None where there is none.
        units: ``field`` for those of the field, else a unit's name; empty for a pure number.
        digits: after the point.
    """

    title: str
    better: str = ""
    ideal: float | None = None
    units: str = ""
    digits: int = 3

    def __post_init__(self) -> None:
        if self.better not in WAYS:
            raise GapzooError(f"score '{self.title}': better '{self.better}' is none of {WAYS}")
        if self.better == "near" and self.ideal is None:
            raise GapzooError(f"score '{self.title}': 'near' needs an 'ideal' value")

    def badness(self, value: float) -> float:
        """Smaller is better; NaN where the score ranks nothing."""
        if self.better == "near" and self.ideal == 1:
            return abs(math.log(value)) if value > 0 else math.inf
        if self.better == "near" and self.ideal is not None:
            return abs(value - self.ideal)
        return {"lower": value, "higher": -value}.get(self.better, math.nan)


METRICS = {
    "crps": Metric("CRPS", "lower", units=FIELD),
    "rmse": Metric("RMSE", "lower", units=FIELD),
    "mae": Metric("MAE", "lower", units=FIELD),
    "energy_score": Metric("energy score", "lower"),
    "acc": Metric("ACC", "higher"),
    "spread_skill": Metric("spread/skill", ideal=1.0, digits=2),
    "bias": Metric("bias", "near", ideal=0.0, units=FIELD),
    "rpss": Metric("RPSS", "higher", ideal=1.0),
    "spectrum_error": Metric("spectrum error", "lower"),
    "histogram_distance": Metric("histogram distance", "lower"),
    "spread_ratio": Metric("spread ratio", ideal=1.0, digits=2),
    "variance_ratio": Metric("variance ratio", "near", ideal=1.0, digits=2),
}
"""Scores that several tracks have."""
SHOWN = {
    "analysis": ("crps", "rmse", "spread_skill"),
    "weather": ("crps", "rmse", "acc", "spread_skill"),
    "cycle": ("crps", "rmse", "spread_skill"),
    "prior": ("spectrum_error", "histogram_distance", "spread_ratio"),
}
"""What is printed and shown, by track; of other tracks what their rows describe."""


def known(rows: Iterable[dict[str, Any]]) -> dict[str, Metric]:
    """Scores by name: those of every track, and what rows say of theirs.

    Raises:
        GapzooError: where a row describes a score wrongly.
    """
    found = dict(METRICS)
    for row in rows:
        for name, told in row.get("metrics", {}).items():
            found[name] = _read(name, told)
    return found


def metric(name: str, rows: Iterable[dict[str, Any]] = ()) -> Metric:
    """One of them; a score that nobody describes ranks nothing and is called by its name."""
    return known(rows).get(name) or Metric(name.replace("_", " "))


def names(rows: list[dict[str, Any]]) -> list[str]:
    """Scores to show, first the main one: the track's, those that rows describe, or all there are.

    Args:
        rows: of one protocol, one at least.
    """
    every = [at for row in rows for at in row["scores"].values()]
    there = dict.fromkeys(n for at in every for n, value in at.items() if is_score(value))
    told = dict.fromkeys(name for row in rows for name in row.get("metrics", {}))
    wanted = [*SHOWN.get(track(rows[0]), ()), *told]
    return [name for name in dict.fromkeys(wanted) if name in there] or list(there)


def track(row: dict[str, Any]) -> str:
    """The track of a row; rows of before settings were kept tell by their protocol's name."""
    return str(row.get("settings", {}).get("track") or row["protocol"].partition("-")[0])


def is_score(value: Any) -> bool:
    """Whether a value of a row is one number."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def described(metrics: dict[str, Metric]) -> dict[str, dict[str, Any]]:
    """As rows keep them."""
    return {name: asdict(metric) for name, metric in metrics.items()}


def _read(name: str, told: Any) -> Metric:
    keys = Metric.__dataclass_fields__
    for key in told if isinstance(told, dict) else {}:
        if key not in keys:
            raise GapzooError(f"row's score '{name}': no '{key}'; {nearest(key, keys)}")
    try:
        return Metric(**told)
    except TypeError:
        raise GapzooError(
            f"row's score '{name}' must be described by title, better, ideal, units, digits"
        ) from None
