"""Memory for batches that is lent and comes back, so that no batch pays for new pages.

Handing tens of megabytes back to the system and asking for them again at every batch costs more
than copying a batch does: the system clears each page that it gives out.
"""

from __future__ import annotations

import weakref
from collections import defaultdict

import numpy as np
import torch
from torch import Tensor

KEPT = 6
"""Buffers of one shape that are kept: read ahead, under way and at work."""


class Buffers:
    """Lends float32 tensors; the memory of one is lent again once nothing refers to it."""

    def __init__(self) -> None:
        self._free: dict[tuple[int, ...], list[np.ndarray]] = defaultdict(list)

    def lend(self, shape: tuple[int, ...]) -> tuple[np.ndarray, Tensor]:
        """An array to fill and the tensor that it becomes; keep the tensor, not the array.

        Views of the tensor keep the memory; views of the array do not.
        """
        free = self._free[shape]
        try:
            buffer = free.pop()  # one step for the interpreter: threads may share this
        except IndexError:
            buffer = np.empty(shape, np.float32)
        lent = buffer.view()
        weakref.finalize(lent, _back, free, buffer).atexit = False
        return lent, torch.from_numpy(lent)


def _back(free: list[np.ndarray], buffer: np.ndarray) -> None:
    if len(free) < KEPT:
        free.append(buffer)
