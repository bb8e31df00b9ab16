"""Training states that a device holds: copied there once, batches are taken from its own memory.

A network that a GPU trains takes its batches faster than a processor copies them: one of four
million parameters some thousand states a second, 270 kB each in the default world. Its twenty-five
years take 11 GB.
"""

from __future__ import annotations

import numpy as np
import torch
from rich.progress import track
from torch import Tensor

from gapzoo.core import GapzooError
from gapzoo.core.world import World
from gapzoo.data.archive import Archive
from gapzoo.data.module import Reader

AT_ONCE = 128
"""Steps that are copied at a time."""


class HeldReader(Reader):
    """Reads as :class:`Reader` does, from a device's memory; batches lie on that device.

    Args:
        archive, world: see :class:`Reader`.
        positions: (N,) steps to hold; no others can be read.
        device: where.

    Raises:
        GapzooError: where they do not fit there.
    """

    def __init__(
        self, archive: Archive, world: World, positions: np.ndarray, device: torch.device
    ) -> None:
        super().__init__(archive, world)
        self.device, self._row = device, np.full(len(archive.times), -1)
        self._row[positions] = np.arange(len(positions))
        self._held = {
            "state": self._hold("state", positions, self._channels),
            "forcing": self._hold("forcing", positions, None),
        }

    def _hold(self, name: str, positions: np.ndarray, channels: list[int] | None) -> Tensor:
        parts = np.array_split(positions, max(1, len(positions) // AT_ONCE))
        first = super()._read(name, parts[0], channels)
        try:
            held = first.new_empty((len(positions), *first.shape[1:]), device=self.device)
        except RuntimeError as error:  # torch's OutOfMemoryError is one; a CPU's has no class
            size = 4 * len(positions) * first[0].numel() / 1e9
            raise GapzooError(
                f"{size:.1f} GB of {self.archive.path}'s {name} do not fit on {self.device} "
                f"({str(error).splitlines()[0]}); train with hold=false"
            ) from None
        done = 0
        for part in track(parts, f"{name} to {self.device}"):
            held[done : done + len(part)] = super()._read(name, part, channels).to(self.device)
            done += len(part)
        return held

    def _read(self, name: str, positions: np.ndarray, channels: list[int] | None) -> Tensor:
        rows = self._row[positions]
        if (rows < 0).any():
            missing = self.archive.times[positions[rows < 0][0]]
            raise GapzooError(f"{self.archive.path}: step {missing} is not held on {self.device}")
        return self._held[name][torch.from_numpy(rows).to(self.device)]
