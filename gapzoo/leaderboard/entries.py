"""What is compared: a method and its options, as a user writes them.

gap prior=unet_small.speedy-t21-v1 steps=6     a checkpoint and how its task is done
climatology                                    a baseline
gap.yaml                                       the same in a file: ``entry: gap``, ``prior: ...``
forecasts.zarr                                 forecasts made elsewhere, WeatherBench 2 layout
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from yaml import YAMLError

from gapzoo import recipe
from gapzoo.core import GapzooError

STORES = (".zarr", ".nc", ".nc4", ".netcdf")
FOLDER_ENTRY = "folder"
"""Name of the method that reads forecasts made elsewhere."""


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
    if path.suffix in (".yaml", ".yml"):
        return _file(path, options)
    if path.suffix in STORES or path.is_dir():
        return Entry(FOLDER_ENTRY, {"path": name, **options}, path.stem)
    return Entry(name, options, name)


def _file(path: Path, changes: dict[str, Any]) -> Entry:
    try:
        values = OmegaConf.to_container(OmegaConf.load(path))
    except (OSError, UnicodeError, YAMLError) as error:
        raise GapzooError(f"entry {path} cannot be read: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict) or "entry" not in values:
        raise GapzooError(f"entry {path} must be 'key: value' lines, 'entry: METHOD' among them")
    options = {str(k): v for k, v in values.items() if k != "entry"}
    return Entry(str(values["entry"]), {**options, **changes}, path.stem)
