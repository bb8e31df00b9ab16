"""Tables in a README, written from the rows between markers so that they cannot fall out of step.

    <!-- leaderboard:PROTOCOL metric=crps settings=24,48 below=spread_skill -->
    ...
    <!-- end -->

Options have the defaults metric=crps, every setting, and nothing below; ``contrast=a,b`` adds the
relative difference of two rows, ``cost=seconds`` what they took; ``without=a,b`` leaves rows out.
``scores=a,b`` makes a line of each score of one setting, entries across, ``limit=a`` last.
"""

from __future__ import annotations

import re
from pathlib import Path

from gapzoo.core import GapzooError, nearest
from gapzoo.leaderboard import sheet
from gapzoo.leaderboard.rows import FOLDER
from gapzoo.leaderboard.tables import markdown

BLOCK = re.compile(r"(<!-- leaderboard:(\S+)([^\n]*?) ?-->\n)(.*?)(<!-- end -->)", re.DOTALL)
OPTIONS = ("metric", "settings", "below", "contrast", "cost", "without")
SHEET = ("scores", "settings", "limit")


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
        wanted = _options(match[3])
        if "scores" in wanted:
            text = sheet.markdown(match[2], wanted.pop("scores"), folder, **wanted)
        else:
            metric = wanted.pop("metric", ("crps",))[0]
            text = markdown(match[2], metric, folder, **wanted)
        return f"{match[1]}{text}\n{match[5]}"

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


def _options(text: str) -> dict[str, tuple[str, ...]]:
    words = [word.partition("=") for word in text.split()]
    known = SHEET if any(key == "scores" for key, _, _ in words) else OPTIONS
    for key, _, _ in words:
        if key not in known:
            every = (*known, "scores") if known is OPTIONS else known
            raise GapzooError(f"leaderboard marker: no option '{key}'; {nearest(key, every)}")
    return {key: tuple(value.split(",")) for key, _, value in words}
