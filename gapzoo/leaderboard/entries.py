"""What is compared: a method and its options, as a user writes them.

    unet_small.speedy-t21-v4 steps=6        a checkpoint and how its task is done
    gap prior=unet_small.speedy-t21-v4      the same by the method's name
    climatology                             a baseline
    recipes/forecast/truth.yaml             a task's recipe: its networks and their settings
    gap.yaml                                a method in a file: ``entry: gap``, ``prior: ...``
    forecasts.zarr                          forecasts made elsewhere, WeatherBench 2 layout

What a protocol fixes (initial times, leads, members, seed, ...) is left out of a task's recipe.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gapzoo import checkpoint, recipe
from gapzoo.core import GapzooError
from gapzoo.forecasters import TRAINED

STORES = (".zarr", ".nc", ".nc4", ".netcdf")
FOLDER_ENTRY = "folder"
"""Name of the method that reads forecasts made elsewhere."""
FIXED = {
    "initial", "times", "lead_days", "hours", "write_hours", "group", "members", "seed", "truth",
    "forcing", "sst", "perturb", "device",
}  # fmt: skip
"""Keys of a task's recipe that are the protocol's."""
ALONE = ("speedy", "persistence", "climatology")
"""Forecasters that need no checkpoint and are methods of their own."""


@dataclass(frozen=True)
class Entry:
    """A registered method, its options, and what its row is called."""

    method: str
    options: dict[str, Any]
    name: str


def resolve(words: list[str]) -> Entry:
    """An entry from the words of a command.

    Args:
        words: the entry, then ``key=value`` options.

    Raises:
        GapzooError: where no entry is named, or its file is none.
    """
    if not words or "=" in words[0]:
        raise GapzooError("no entry; write --entry ENTRY key=value ..., see 'gapzoo list'")
    name, options = words[0], recipe.options(words[1:])
    path = Path(name)
    if (kind := _kind(name)) is not None:
        method = _alone(name) if kind == "forecaster" else "gap"
        return Entry(method, {kind: name, **options}, path.name)
    if path.suffix in (".yaml", ".yml"):
        return _file(path, options)
    if path.suffix in STORES or path.is_dir():
        return Entry(FOLDER_ENTRY, {"path": name, **options}, path.stem)
    return Entry(name, options, name)


def _kind(name: str) -> str | None:
    """``prior`` or ``forecaster`` where a checkpoint is so called, damaged ones too."""
    body = _body(name)
    if body is None:
        return None
    return "forecaster" if body.get("kind") == "forecaster" else "prior"


def _alone(name: str) -> str:
    """The method that is a forecaster's checkpoint alone."""
    model = str((_body(name) or {}).get("model"))
    return next((name for name in TRAINED if model.startswith(name)), "convcast")


def _body(name: str) -> dict[str, Any] | None:
    try:
        return dict(json.loads((checkpoint.find(name) / "checkpoint.json").read_text()))
    except (GapzooError, ValueError):
        return None


def _file(path: Path, changes: dict[str, Any]) -> Entry:
    values = recipe.read(path)
    if "entry" in values:
        method = str(values.pop("entry"))
        return Entry(method, {**values, **changes}, path.stem)
    if "forecaster" not in values and "prior" not in values:
        raise GapzooError(f"entry {path} has neither 'entry: METHOD' nor the networks of a task")
    method, options = _task({k: v for k, v in values.items() if k not in FIXED})
    return Entry(method, {**options, **changes}, path.stem)


def _task(values: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The method that a task's recipe describes, and its options."""
    forecaster, sampling = str(values.get("forecaster", "")), values.pop("sampling", {})
    if values.get("prior"):
        return "gap", {**values, **sampling}
    if forecaster in ALONE:
        return forecaster, {}
    return _alone(forecaster), {"forecaster": forecaster}
