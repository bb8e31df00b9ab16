"""Who does the work of a build or an evaluation: processes, threads, or a dask cluster's workers.

Each is an executor of the standard library's kind. A dask worker that is lost gives its job to
another; of a build, that one goes on from the last shard written.
"""

from __future__ import annotations

import multiprocessing
import os
import platform
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from threading import Lock
from typing import Any

from gapzoo.core import GapzooError


@dataclass(frozen=True)
class Workers:
    """How segments are worked on.

    Args:
        count: processes or threads; one a core where None.
        cores: cores to pin processes to; all there are where None.
        threads: threads of this process instead of processes of their own.
        scheduler: address of a dask scheduler, such as ``tcp://10.0.0.1:8786``.
        portable: processes leave out instructions that only some processors have, so that a
            simulator makes the same climate on all.
    """

    count: int | None = None
    cores: list[int] | None = None
    threads: bool = False
    scheduler: str | None = None
    portable: bool = True

    @contextmanager
    def executor(self, jobs: int) -> Iterator[Executor]:
        """Something to submit so many jobs to; closed at the end."""
        if self.scheduler:
            with _dask(self.scheduler) as pool:
                yield pool
            return
        cores = self.cores or _cores()
        count = min(self.count or len(cores), jobs)
        pool = ThreadPoolExecutor(count) if self.threads else self._processes(count, cores)
        try:
            yield pool
        finally:
            pool.shutdown(cancel_futures=True)

    def _processes(self, count: int, cores: list[int]) -> ProcessPoolExecutor:
        context = multiprocessing.get_context("spawn")
        queue = context.SimpleQueue()
        for core in (cores * count)[:count]:
            queue.put(core)
        return ProcessPoolExecutor(count, context, _pin, (queue, self.portable))


def _cores() -> list[int]:
    """Cores that this process may use; all there are where the system does not tell."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def _pin(queue: Any, portable: bool = True) -> None:
    """Give this process one thread, and one core of its own where the system can."""
    os.environ["OMP_NUM_THREADS"] = "1"
    if portable:
        os.environ["XLA_FLAGS"] = _flags(os.environ.get("XLA_FLAGS", ""))
    core = queue.get()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {core})


def _flags(given: str) -> str:
    """XLA's flags: one thread, and no instructions that only some x86-64 processors have.

    With wider ones sums are rounded in another order, and a chaotic simulator makes another
    realisation of its climate.
    """
    flags = [given, "--xla_cpu_multi_thread_eigen=false"]
    if platform.machine() in ("x86_64", "AMD64") and "--xla_cpu_max_isa" not in given:
        flags.append("--xla_cpu_max_isa=AVX2")
    return " ".join(flags).strip()


class _ComputedHere:
    """See ``computed_here``; dask's settings are of the whole process, so threads are counted."""

    def __init__(self) -> None:
        self.lock, self.inside, self.setting = Lock(), 0, ExitStack()

    def __enter__(self) -> None:
        with self.lock:
            if self.inside == 0 and find_spec("dask") is not None:
                import dask

                self.setting.enter_context(dask.config.set(scheduler="synchronous"))
            self.inside += 1

    def __exit__(self, *_: object) -> None:
        with self.lock:
            self.inside -= 1
            if self.inside == 0:
                self.setting.close()


computed_here = _ComputedHere()
"""Lazy arrays are computed by the thread that asks for them, while any thread is inside.

A dask worker would send them to the cluster, and wait for itself.
"""


@contextmanager
def _dask(address: str) -> Iterator[Executor]:
    try:
        from distributed import Client
    except ModuleNotFoundError:
        raise GapzooError("--scheduler needs dask; pip install 'gapzoo[dask]'") from None
    try:
        client = Client(address, timeout="30s", set_as_default=False)
    except (OSError, ValueError) as error:
        raise GapzooError(f"no dask scheduler answers at {address} ({error})") from None
    with client, client.get_executor(pure=False) as pool:
        yield pool
