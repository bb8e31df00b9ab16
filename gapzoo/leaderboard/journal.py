"""The cases of a run that are done, one file each, so that a killed run goes on where it was.

A case's file appears whole, after everything that the row needs of it is known; the row is made
from all files in the order of the cases. It is therefore the same whether the run was killed once,
a hundred times or never. A run is known by what its scores depend on: protocol, archive, entry,
options, and what the method says of itself (hashes of weights, sampling).
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import time
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from gapzoo.fit import versions
from gapzoo.leaderboard.statistics import Arrays

DONE = ".done"
"""Ending of a claim's name once its case is made."""


class Shared(Exception):
    """A helping process has nothing left to make; the run itself collects what there is."""


@dataclass
class Journal:
    """Does each case once.

    Args:
        folder: where cases are kept, one folder a run below it; None keeps nothing.
        identity: what tells this run from others, before the method's provenance is known.
        progress: called with 1 after each case.
        claims: of a helping process: folder of what helpers have begun (``leaderboard.helpers``).
    """

    folder: Path | None = None
    identity: dict[str, Any] = field(default_factory=dict)
    progress: Callable[[int], None] | None = None
    claims: Path | None = None
    wall: float = 0.0
    cpu: float = 0.0
    scoring: float = 0.0
    commits: list[str] = field(default_factory=list)
    _run: Path | None = None

    def begin(self, provenance: dict[str, Any]) -> None:
        """Find the run's folder; once, before the first case."""
        if self.folder is None:
            return
        text = json.dumps({**self.identity, "method": provenance}, sort_keys=True, default=str)
        digest = hashlib.sha256(text.encode()).hexdigest()[:12]
        stem = re.sub(r"[^\w.-]+", "-", f"{self.identity.get('name', 'run')}.{digest}")
        self._run = self.folder / stem
        self._run.mkdir(parents=True, exist_ok=True)
        (self.folder / ".gitignore").write_text("*\n")

    def share(self, makes: Mapping[str, Callable[[], Arrays]]) -> None:
        """In a helping process, make the cases that no other has begun; elsewhere do nothing.

        Args:
            makes: what makes a case, by its key: all cases of the run.

        Raises:
            Shared: in a helping process, at the end.
        """
        if self.claims is None:
            return
        for key, make in makes.items():
            claim = self.claims / self._stem(key)
            try:
                claim.touch(exist_ok=False)
            except FileExistsError:
                continue
            self.case(key, make)
            claim.with_name(claim.name + DONE).touch()
        raise Shared

    def done(self, key: str) -> bool:
        """Whether a case is there."""
        return self._read(key) is not None

    def case(self, key: str, make: Callable[[], Arrays]) -> Arrays:
        """The statistics of a case, made now or before.

        Args:
            key: of the case, unlike all others of the run; a file's name.
            make: draws and scores it; what was made before in parts brings their ``cost`` (wall
                and CPU seconds) and ``commit`` itself.
        """
        found = self._read(key)
        if found is None:
            started, cpu = time.monotonic(), time.process_time()
            found = dict(make())
            spent = np.array([time.monotonic() - started, time.process_time() - cpu])
            found = {"cost": spent, "commit": np.array(self._commit), **found}
            self._write(key, found)
        self.wall, self.cpu = self.wall + found["cost"][0], self.cpu + found["cost"][1]
        self.scoring += sum(float(v) for k, v in found.items() if k.endswith("seconds"))
        self.commits = list(dict.fromkeys([*self.commits, *str(found["commit"]).split(", ")]))
        if self.progress:
            self.progress(1)
        return found

    def clear(self) -> None:
        """Forget the cases, once their row is stored."""
        if self._run is not None:
            shutil.rmtree(self._run, ignore_errors=True)

    @cached_property
    def _commit(self) -> str:
        return versions()["git commit"]

    def _path(self, key: str) -> Path | None:
        return None if self._run is None else self._run / f"{self._stem(key)}.npz"

    @staticmethod
    def _stem(key: str) -> str:
        return re.sub(r"[^-.a-zA-Z0-9]", "_", key)

    def _read(self, key: str) -> Arrays | None:
        path = self._path(key)
        if path is None or not path.exists():
            return None
        if not zipfile.is_zipfile(path):  # cut off by a power failure: made again
            return None
        with np.load(path, allow_pickle=False) as file:
            return dict(file)

    def _write(self, key: str, found: Arrays) -> None:
        path = self._path(key)
        if path is None:
            return
        part = path.with_suffix(".part")
        with part.open("wb") as file:
            np.savez(file, **found)  # type: ignore[arg-type]
        part.replace(path)
