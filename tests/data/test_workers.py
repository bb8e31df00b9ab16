"""Workers: cores where the system does not tell them, flags that are the user's kept."""

import os
import platform
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


@pytest.mark.parametrize(
    ("machine", "given", "told"),
    [
        ("x86_64", "", "--xla_cpu_multi_thread_eigen=false --xla_cpu_max_isa=AVX2"),
        ("arm64", "", "--xla_cpu_multi_thread_eigen=false"),
        (
            "x86_64",
            "--xla_cpu_max_isa=SSE4_2",
            "--xla_cpu_max_isa=SSE4_2 --xla_cpu_multi_thread_eigen=false",
        ),
    ],
)
def test_instructions_are_those_of_every_processor_unless_told(monkeypatch, machine, given, told):
    monkeypatch.setattr(platform, "machine", lambda: machine)
    assert workers._flags(given) == told
