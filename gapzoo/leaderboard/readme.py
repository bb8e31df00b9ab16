"""Tables in a README, written from the rows between markers so that they cannot fall out of step.

    <!-- leaderboard:PROTOCOL metric=crps settings=24,48 below=spread_skill -->
    ...
    <!-- end -->

Options have the defaults metric=crps, every setting, and nothing below; ``contrast=a,b`` adds the
relative difference of two rows, ``cost=seconds`` what they took; ``without=a,b`` leaves rows out.
"""

from __future__ import annotations

import re
from pathlib import Path

from gapzoo.core import GapzooError, nearest
from gapzoo.leaderboard.rows import FOLDER
from gapzoo.leaderboard.tables import markdown

BLOCK = re.compile(r"(<!-- leaderboard:(\S+)([^\n]*?) ?-->\n)(.*?)(<!-- end -->)", re.DOTALL)
OPTIONS = ("metric", "settings", "below", "contrast", "cost", "without")


def filled(text: str, folder: Path = FOLDER) -> str:
    """A text with every marked table made anew.

    Args:
        text: Markdown.
        folder: of the rows.

    Raises:
        GapzooError: for a protocol without rows, an unknown option, or a block without an end.
    """
    if text.count("<!-- leaderboard:") != len(BLOCK.findall(text)):
        raise GapzooError("a '<!-- leaderboard:PROTOCOL -->' has no '<!-- end -->' below it")

    def table(match: re.Match[str]) -> str:
        options = _options(match[3])
        metric = options.pop("metric", ["crps"])[0]
        wanted = {key: tuple(value) for key, value in options.items()}
        return f"{match[1]}{markdown(match[2], metric, folder, **wanted)}\n{match[5]}"

    return BLOCK.sub(table, text)


def write(path: Path, folder: Path = FOLDER) -> bool:
    """Fill a file's tables; whether it changed."""
    try:
        old = path.read_text(encoding="utf-8")
    except OSError as error:
        raise GapzooError(f"{path} cannot be read: {error.strerror}") from None
    new = filled(old, folder)
    part = path.with_suffix(".part")
    part.write_text(new, encoding="utf-8")
    part.replace(path)
    return new != old


def _options(text: str) -> dict[str, list[str]]:
    found = {}
    for word in text.split():
        key, _, value = word.partition("=")
        if key not in OPTIONS:
            raise GapzooError(f"leaderboard marker: no option '{key}'; {nearest(key, OPTIONS)}")
        found[key] = value.split(",")
    return found
