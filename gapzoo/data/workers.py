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
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from multiprocessing.connection import wait
from threading import Lock, Thread
from typing import Any

from gapzoo.core import GapzooError

KERNELS = "OPENBLAS_CORETYPE"
OWN = (
    "--xla_cpu_experimental_ynn_fusion_type=",
    "--xla_cpu_enable_platform_dependent_math=false",
)
"""No kernels and no functions of XLA that a processor has for its own."""


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
        with _kernels(self.portable and not self.threads):
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


@contextmanager
def _kernels(portable: bool) -> Iterator[None]:
    """Processes begun inside take OpenBLAS's kernels for AVX, which it chooses when it is loaded.

    numpy's linear algebra prepares a spectral model's matrices.
    """
    if not portable or not _x86() or KERNELS in os.environ:
        yield
        return
    os.environ[KERNELS] = "Sandybridge"
    try:
        yield
    finally:
        del os.environ[KERNELS]


def _x86() -> bool:
    return platform.machine() in ("x86_64", "AMD64")


def _pin(queue: Any, portable: bool = True) -> None:
    """Give this process one thread, and one core of its own where the system can.

    It ends with the process that began it, however that ends.
    """
    Thread(target=_follow, daemon=True).start()
    os.environ["OMP_NUM_THREADS"] = "1"
    if portable:
        os.environ["XLA_FLAGS"] = _flags(os.environ.get("XLA_FLAGS", ""))
    core = queue.get()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {core})


def _follow() -> None:
    """Wait for the process that began this one to end, and end with it."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _flags(given: str) -> str:
    """XLA's flags: one thread, AVX's instructions alone, and no kernels that look for others.

    With others sums are rounded in another order, and a chaotic simulator makes another realisation
    of its climate. It is not AVX2: only where XLA leaves out something that the processor has does
    it compile for the kind of processor that the flag names, and some have AVX2 and no more.
    YNNPACK's products of matrices take what they find at run time, and reciprocal roots begin from
    a processor's own guess.
    """
    flags = ["--xla_cpu_multi_thread_eigen=false"]
    if _x86():
        flags.append("--xla_cpu_max_isa=AVX")
    if _jaxlib().startswith("0.10."):  # XLA stops at a flag that it does not know
        flags.extend(OWN)
    return " ".join([given, *(flag for flag in flags if flag.split("=")[0] not in given)]).strip()


def _jaxlib() -> str:
    """Its version; empty where it is not installed."""
    try:
        return version("jaxlib")
    except PackageNotFoundError:
        return ""


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
