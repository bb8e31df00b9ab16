"""Workers: cores where the system does not tell them, flags that are the user's kept."""

import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from queue import SimpleQueue

import pytest

from gapzoo.data import workers


def test_the_flags_of_the_user_are_kept(monkeypatch):
    pinned, queue = [], SimpleQueue()
    queue.put(3)
    monkeypatch.setenv("XLA_FLAGS", "--xla_dump_to=/tmp/x")
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.setattr(os, "sched_setaffinity", lambda *given: pinned.append(given))
    workers._pin(queue)
    flags = os.environ["XLA_FLAGS"].split()
    assert flags[:2] == ["--xla_dump_to=/tmp/x", "--xla_cpu_multi_thread_eigen=false"]
    assert os.environ["OMP_NUM_THREADS"] == "1" and pinned == [(0, {3})]


def test_a_system_without_affinity_has_all_its_cores(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.delattr(os, "sched_setaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    monkeypatch.setenv("XLA_FLAGS", "")
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert workers._cores() == [0, 1, 2]
    with workers.Workers(threads=True).executor(9) as pool:
        assert pool._max_workers == 3
    queue = SimpleQueue()
    queue.put(0)
    workers._pin(queue)
    assert os.environ["XLA_FLAGS"].startswith("--xla_cpu_multi_thread_eigen=false")


ONE, AVX = "--xla_cpu_multi_thread_eigen=false", "--xla_cpu_max_isa=AVX"
OWN = "--xla_cpu_experimental_ynn_fusion_type= --xla_cpu_enable_platform_dependent_math=false"


@pytest.mark.parametrize(
    ("machine", "jaxlib", "given", "told"),
    [
        ("x86_64", "0.10.2", "", f"{ONE} {AVX} {OWN}"),
        ("arm64", "0.10.2", "", f"{ONE} {OWN}"),
        ("x86_64", "0.7.0", "", f"{ONE} {AVX}"),
        ("arm64", "", "", ONE),
        ("x86_64", "", "--xla_cpu_max_isa=SSE4_2", f"--xla_cpu_max_isa=SSE4_2 {ONE}"),
    ],
)
def test_sums_are_those_of_every_processor_unless_told(monkeypatch, machine, jaxlib, given, told):
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(workers, "_jaxlib", lambda: jaxlib)
    assert workers._flags(given) == told


def _architectures() -> set[str]:
    import numpy  # noqa: F401
    from threadpoolctl import threadpool_info

    return {found["architecture"] for found in threadpool_info() if "architecture" in found}


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="x86-64 alone")
@pytest.mark.parametrize(("given", "taken"), [(None, "Sandybridge"), ("Nehalem", "Nehalem")])
def test_linear_algebra_takes_the_kernels_of_every_processor_unless_told(monkeypatch, given, taken):
    monkeypatch.delenv(workers.KERNELS, raising=False)
    if given:
        monkeypatch.setenv(workers.KERNELS, given)
    with workers.Workers(count=1).executor(1) as pool:
        assert pool.submit(_architectures).result() == {taken}
    assert os.environ.get(workers.KERNELS) == given


ORPHANED = """
import os, time
from gapzoo.data.workers import Workers

def work():
    print(os.getpid(), flush=True)
    time.sleep(120)

if __name__ == "__main__":
    with Workers(count=1).executor(1) as pool:
        pool.submit(work).result()
"""


def _runs(process: Path) -> bool:
    """Whether it does, and is not only waiting to be fetched."""
    try:
        return ") Z " not in (process / "stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for processes in /proc")
def test_processes_end_with_the_one_that_began_them(tmp_path):
    script = tmp_path / "orphaned.py"
    script.write_text(ORPHANED)
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True) as parent:
        worker = Path("/proc", parent.stdout.readline().strip())
        assert _runs(worker)
        parent.kill()
    deadline = time.monotonic() + 30
    while _runs(worker) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _runs(worker)
