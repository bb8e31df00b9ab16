"""A table of one setting: scores downwards, entries across.

For protocols whose rows have many scores of one run, such as a climate's. The best of each line is
bold; a row that is a limit to approach, no competitor, stands last.
"""

from __future__ import annotations

from pathlib import Path

from gapzoo.core import GapzooError
from gapzoo.leaderboard.rows import FOLDER, label
from gapzoo.leaderboard.tables import Ranking, found, made, others, row_name


def markdown(
    protocol: str,
    scores: tuple[str, ...],
    folder: Path = FOLDER,
    settings: tuple[str, ...] = (),
    limit: tuple[str, ...] = (),
) -> str:
    """The table as Markdown, with what its numbers depend on below it.

    Args:
        protocol: with rows.
        scores: the lines.
        folder: of the rows.
        settings: the one that is shown; the only one that rows have where empty.
        limit: names of rows that compete with none, the last columns.

    Raises:
        GapzooError: without rows, for a score that none has, or with several settings.
    """
    every = found(protocol, folder)
    competing = others(every, limit)
    last = [row for row in every if label(row) in limit]
    order = Ranking(competing, scores[0], settings)
    if len(order.settings) != 1:
        raise GapzooError(
            f"'scores' shows one setting, and rows of '{protocol}' have "
            f"{', '.join(order.settings)}; name one: settings=..."
        )
    names = [row_name(row) for row in (*order.rows, *last)]
    lines = [f"| | {' | '.join(names)} |", "|---|" + "---|" * len(names)]
    for score in scores:
        best = Ranking(competing, score, order.settings)
        all_ = Ranking([*competing, *last], score, order.settings)
        cells = [best.cells(best.rows.index(row), "**{}**")[0] for row in order.rows]
        cells += [all_.cells(all_.rows.index(row), "{}")[0] for row in last]
        lines.append(f"| {best.told.title} | {' | '.join(cells)} |")
    note = "Bold is best." if len(competing) > 1 else ""
    return "\n".join([*lines, "", " ".join(part for part in (made(every), note) if part)])
