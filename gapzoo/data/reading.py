"""Steps of an archive's array, copied from its shard files straight into a batch.

An uncompressed shard is its chunks in raw memory and an index of (offset, length) of each at its
end. A local one is mapped; so many maps are held at most, so neither the memory of the process
nor the files that are open grow with the archive. Anything else goes through zarr.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from gapzoo.core import GapzooError

OPEN_FILES = 384
"""Most shards of one array that are mapped at a time; each is an open file."""
EMPTY_CHUNK = 2**64 - 1


class ShardReader:
    """Reads steps of ``array`` (time, C, H, W), whose chunks are one step.

    Args:
        array: zarr's.
        folder: where its files are, if they are local.
    """

    def __init__(self, array: Any, folder: Path) -> None:
        self.array, self.folder, self.steps = array, folder, int(array.shards[0])
        self.shape: tuple[int, ...] = array.shape[1:]
        self.file = lru_cache(OPEN_FILES)(self._open)

    def __reduce__(self) -> tuple[type[ShardReader], tuple[Any, Path]]:
        """Elsewhere it maps its files anew."""
        return ShardReader, (self.array, self.folder)

    def read(
        self,
        positions: np.ndarray,
        channels: Sequence[int] | None,
        out: np.ndarray | None = None,
    ) -> np.ndarray:
        """(N, C, H, W) float32 of steps in any order, of some channels or all, into ``out``.

        Raises:
            GapzooError: where a step was never written, or its file is cut off.
        """
        if out is None:
            count = self.shape[0] if channels is None else len(channels)
            out = np.empty((len(positions), count, *self.shape[1:]), np.float32)
        for position, into in zip(np.asarray(positions).tolist(), out, strict=True):
            step = self._step(position)
            if step is None:
                raise GapzooError(
                    f"step {position} of {self.folder} was never written; go on with build-data"
                )
            if channels is None:
                into[...] = step
            else:
                np.take(step, channels, 0, into, "clip")  # the default makes a copy more
        return out

    def _step(self, position: int) -> np.ndarray | None:
        """(C, H, W), mapped where it can be; None where there is none."""
        shard, row = divmod(position, self.steps)
        file = self.file(shard)
        if file is not None:
            return file.step(row)
        step = self.array[position]
        return None if np.isnan(step).all() else step  # the fill value, which no state is

    def _open(self, shard: int) -> ShardFile | None:
        path = self.folder / "c" / str(shard) / "0" / "0" / "0"
        local = not self.array.compressors and path.is_file()
        return ShardFile(path, self.steps, self.shape) if local else None


class ShardFile:
    """A mapped shard; it is closed when the last who uses it lets it go.

    Args:
        path: the file.
        steps: chunks that it has room for.
        shape: (C, H, W) of a chunk.
    """

    def __init__(self, path: Path, steps: int, shape: tuple[int, ...]) -> None:
        self.shape, self.length = shape, 4 * int(np.prod(shape))
        footer = 16 * steps + 4
        size = path.stat().st_size
        mapped = np.memmap(path, np.uint8, "r") if size >= footer else np.zeros(0, np.uint8)
        self.raw = np.asarray(mapped)  # slicing a memmap costs more than reading a small step
        index = self.raw[size - footer : size - 4].tobytes().ljust(16 * steps, b"\xff")
        self.index: list[list[int]] = np.frombuffer(index, "<u8").reshape(-1, 2).tolist()
        whole = [row * self.length for row in range(steps)]
        self.rows: np.ndarray | None = None
        if [offset for offset, _ in self.index] == whole and size >= steps * self.length:
            self.rows = self._view(0, steps * self.length).reshape(steps, *shape)

    def step(self, row: int) -> np.ndarray | None:
        """(C, H, W) of a chunk; None where it is not there whole."""
        if self.rows is not None:
            return self.rows[row]
        offset, length = self.index[row]
        if offset == EMPTY_CHUNK or length != self.length:
            return None
        return self._view(offset, length).reshape(self.shape)

    def _view(self, offset: int, length: int) -> np.ndarray:
        return self.raw[offset : offset + length].view("<f4")
