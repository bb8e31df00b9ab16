"""A dask cluster of processes that talk over TCP, one of which is killed in the middle of its work.

Needs the extra dask; tests that use it skip without.
"""

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

NAMES = ("first", "second")


@dataclass
class Cluster:
    """Its ``address``, and what became of the killing.

    Args:
        scheduler: in this process.
        workers: processes of their own, which nobody starts again.
        lost: the tasks that the first worker had when it was killed.
    """

    address: str
    scheduler: object
    workers: list[subprocess.Popen]
    lost: list[str] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    def kill_first(self, once: Callable[[], bool]) -> None:
        """In a thread: as soon as ``once`` holds and the first worker is at work."""
        threading.Thread(target=self._kill, args=(once,), daemon=True).start()

    def _kill(self, once: Callable[[], bool]) -> None:
        first = next(w for w in self.scheduler.workers.values() if w.name == NAMES[0])
        while not self.over.wait(0.002):
            if once() and (at_work := [str(task.key) for task in list(first.processing)]):
                self.workers[0].kill()
                self.lost += at_work
                return


@contextmanager
def cluster() -> Iterator[Cluster]:
    """A scheduler and two workers, both there."""
    distributed = pytest.importorskip("distributed", reason="needs the extra dask")
    options = {"n_workers": 0, "processes": False, "dashboard_address": None}
    with distributed.LocalCluster(**options, protocol="tcp://", host="127.0.0.1") as local:
        address = local.scheduler_address
        made = Cluster(address, local.scheduler, [_worker(address, name) for name in NAMES])
        try:
            deadline = time.monotonic() + 300
            while len(local.scheduler.workers) < len(NAMES):
                assert time.monotonic() < deadline, "the workers do not come"
                time.sleep(0.05)
            yield made
        finally:
            made.over.set()
            for worker in made.workers:
                worker.kill()
                worker.wait(60)


def _worker(address: str, name: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "distributed.cli.dask_worker", address, "--name", name]
    command += ["--no-nanny", "--no-dashboard", "--nthreads", "1"]
    return subprocess.Popen(command, stderr=subprocess.DEVNULL)
