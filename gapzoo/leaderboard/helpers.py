"""Processes that share the cases of a run: each makes what no other has begun.

A helper goes through the cases in order and claims them by a file each, so that no case is made
twice and none waits for another. What it makes lies in the run's journal, where the run then finds
it; a case that was lost with its helper is made by the run itself. Cases have random numbers of
their own, so that the number of processes changes nothing but the time.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from concurrent.futures import wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.progress import Progress

from gapzoo.data.archive import Archive
from gapzoo.data.workers import Workers
from gapzoo.leaderboard.journal import DONE, Journal, Shared
from gapzoo.leaderboard.methods import setting_of
from gapzoo.leaderboard.protocol import Protocol

POLL = 0.2
"""Seconds between looks at what helpers have done."""


@dataclass(frozen=True)
class Job:
    """A run of which cases can be made elsewhere.

    Args:
        protocol: of the run.
        archive: path of the archive.
        entry: a method.
        options: its own.
        folder: of its journal.
        name: of the run in it.
        device: that networks compute on.
    """

    protocol: Protocol
    archive: Path
    entry: str
    options: dict[str, Any]
    folder: Path
    name: str
    device: str

    def journal(self, **given: Any) -> Journal:
        """Of the run's cases."""
        known: dict[str, Any] = {"protocol": self.protocol.hash, "archive": self._hash}
        known |= {"entry": self.entry, "options": self.options}
        return Journal(self.folder, known | {"name": f"{self.protocol.name}.{self.name}"}, **given)

    @property
    def _hash(self) -> str:
        return Archive(self.archive).hash


def share(jobs: Sequence[Job], processes: int, bar: Progress, parts: int) -> None:
    """Make the open cases of some runs in several processes, one core and one thread each.

    Args:
        jobs: in turn.
        processes: how many at once.
        bar: that shows the progress.
        parts: cases of all.

    Raises:
        GapzooError: of a helper, once all have ended; what is done is kept.
    """
    torch.set_num_threads(1)  # of this process too: a row says how many its numbers had
    task = bar.add_task(f"{processes} processes", total=parts)
    with (
        tempfile.TemporaryDirectory() as folder,
        Workers(processes, portable=False).executor(processes) as pool,
    ):
        claims = Path(folder)
        helpers = [pool.submit(_help, list(jobs), claims) for _ in range(processes)]
        while wait(helpers, POLL).not_done:
            bar.update(task, completed=len(list(claims.glob(f"*/*{DONE}"))))
        bar.update(task, completed=len(list(claims.glob(f"*/*{DONE}"))))
        for helper in helpers:
            helper.result()


def _help(jobs: Sequence[Job], claims: Path) -> None:
    """Make the cases that nobody else makes."""
    from gapzoo.leaderboard.rows import scored

    torch.set_num_threads(1)
    for number, job in enumerate(jobs):
        where = claims / str(number)
        where.mkdir(exist_ok=True)
        setting = setting_of(Archive(job.archive), job.protocol.variables, job.device)
        journal = job.journal(claims=where)
        try:
            scored(job.protocol, setting, job.entry, dict(job.options), journal)
        except Shared:
            continue
