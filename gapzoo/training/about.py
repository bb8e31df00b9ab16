"""What a run ran on: device, date, git commit, versions."""

from __future__ import annotations

import importlib.metadata
import platform
import shutil
import subprocess
from pathlib import Path

import numpy as np
import torch

PACKAGES = ("gapzoo", "torch", "lightning", "numpy")


def versions(device: str = "") -> dict[str, str]:
    """Device, date, git commit and the packages that matter.

    Args:
        device: what was computed on, such as ``cpu``; a GPU where there is one if left out.
    """
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    cuda = device.startswith("cuda") if device else torch.cuda.is_available()
    return {
        "device": torch.cuda.get_device_name(device or None) if cuda else _processor(),
        "date": str(np.datetime64("today")),
        "git commit": _commit(),
        "versions": ", ".join(f"{k} {v}" for k, v in versions.items()),
    }


def _processor() -> str:
    cpu = Path("/proc/cpuinfo")
    lines = cpu.read_text().splitlines() if cpu.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"CPU, {names[0] if names else platform.processor()}, {torch.get_num_threads()} threads"


def _commit() -> str:
    if shutil.which("git") is None:
        return "unknown"
    here = Path(__file__).parent
    done = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=here, capture_output=True, text=True
    )
    return done.stdout.strip() or "unknown"
