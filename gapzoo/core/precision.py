"""Where networks compute in bfloat16."""

from __future__ import annotations

import torch

EMULATED = ("AVX2", "DEFAULT")
"""Capabilities of a processor without bfloat16: PyTorch emulates it, several times slower than
float32 (7 times, forward and backward through ``unet_small``)."""


def native(device: torch.device) -> bool:
    """Whether bfloat16 is any faster there than float32."""
    return device.type != "cpu" or torch.backends.cpu.get_cpu_capability() not in EMULATED


def autocast(device: torch.device, kind: torch.dtype | None) -> torch.autocast:
    """Compute in ``kind`` where the device has it, else, or where None, in float32."""
    enabled = kind is not None and native(device)
    return torch.autocast(device.type, kind or torch.bfloat16, enabled=enabled)
