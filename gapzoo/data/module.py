"""From an archive to batches: the Lightning data module of every trainer here.

Batch k of a run is a pure function of (seed, k): an item of the data set is a whole batch, so a
resumed run sees the very batches that an uninterrupted one would, and with several processes each
takes its rows of the same batch. One thread reads ahead (gapzoo.data.ahead); there are no workers.
In a Trainer, batches travel as they were read and are normalised on its device.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import lightning
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from gapzoo.core import GapzooError
from gapzoo.core.climatology import Climatology
from gapzoo.core.random import derive_seed
from gapzoo.core.world import World
from gapzoo.data.ahead import AHEAD, AheadLoader
from gapzoo.data.archive import Archive
from gapzoo.data.buffers import Buffers
from gapzoo.data.normaliser import Batch, Normaliser


def world_of(archive: Archive, variables: Sequence[str] | None = None) -> World:
    """What a network must know of an archive.

    Args:
        archive: finished, with statistics.
        variables: variables or channels to keep, in the archive's order; all where None.
    """
    if "climatology" not in archive.root:
        raise GapzooError(
            f"{archive.path} has no statistics; finish it with 'gapzoo build-data', or where it "
            "is meant to have none train a checkpoint on under its own: start, normalisation: "
            "parent"
        )
    channels = archive.channels.select(variables)
    keep = [archive.channels.index(c) for c in channels]
    names = archive.attributes["static_channels"]
    climatology = Climatology(archive.array("climatology"), archive.array("climatology_variance"))
    return World(
        name=name_of(archive),
        grid=archive.grid,
        channels=channels,
        hours=hours_of(archive),
        climatology=climatology.select(keep),
        diff_std=archive.array("diff_std")[keep],
        forcing_channels=tuple(archive.forcing_channels),
        forcing_climatology=archive.array("forcing_climatology"),
        forcing_std=archive.array("forcing_std"),
        static=archive.array("static"),
        static_channels=tuple(names),
        details=details_of(archive),
    )


def world_under(
    archive: Archive, world: World, whose: str, variables: Sequence[str] | None = None
) -> World:
    """An archive's world under another's normalisation: climatology, spreads and static fields.

    Args:
        archive: finished; it needs no statistics.
        world: whose statistics they are.
        whose: such as ``checkpoint 'unet_small.tag'``; opens the message of a refusal.
        variables: variables or channels to keep, in the archive's order; all where None.

    Raises:
        GapzooError: where channels, forcings or grid differ.
    """
    own = dataclasses.replace(
        world, name=name_of(archive), grid=archive.grid, channels=archive.channels.select(variables)
    )
    own.require(world, whose)
    if tuple(archive.forcing_channels) != tuple(world.forcing_channels):
        raise GapzooError(
            f"{whose} takes the forcing {', '.join(world.forcing_channels)}, {archive.path} has "
            f"{', '.join(archive.forcing_channels)}"
        )
    return dataclasses.replace(world, name=own.name, details=details_of(archive))


def name_of(archive: Archive) -> str:
    """Of its world."""
    return str(archive.attributes.get("world", archive.path.stem))


def hours_of(archive: Archive) -> int:
    """Between its steps."""
    return int(archive.step.total_seconds() // 3600)


def details_of(archive: Archive) -> dict[str, Any]:
    """What a world keeps of the archive that it was trained on."""
    kept = ("sigma_edges", "license", "source", "arguments")
    found = {k: v for k, v in archive.attributes.items() if k in kept}
    return {**found, "data_hash": archive.hash}


class Reader:
    """Normalised states and conditioning of an archive's steps.

    Args:
        archive: the store.
        world: what normalises it; its channels must all be in the archive.
    """

    def __init__(self, archive: Archive, world: World) -> None:
        if not archive.grid.matches(world.grid):
            raise GapzooError(
                f"{archive.path} has a grid of {archive.grid.shape}, {world.name} one of "
                f"{world.grid.shape} or other points; build the data on that grid"
            )
        self.archive, self.world = archive, world
        self._keep = [archive.channels.index(c) for c in world.channels]
        whole = self._keep == list(range(len(archive.channels)))
        self._channels = None if whole else self._keep
        self.normaliser, self._buffers = Normaliser(world), Buffers()
        self._calendar = self.normaliser.calendar(archive.times)

    def raw(self, positions: np.ndarray) -> Batch:
        """``physical``, ``forcing`` and ``calendar`` of steps, as ``Normaliser`` takes them."""
        return {
            "physical": self.physical(positions),
            "forcing": self._read("forcing", positions, None),
            "calendar": self.calendar(positions),
        }

    def calendar(self, positions: np.ndarray) -> Tensor:
        """(N, 1 + 2K + 3) time of year of steps."""
        return self._calendar[torch.from_numpy(positions)]

    def physical(self, positions: np.ndarray) -> Tensor:
        """(N, C, H, W) states in SI units."""
        return self._read("state", positions, self._channels)

    def _read(self, name: str, positions: np.ndarray, channels: list[int] | None) -> Tensor:
        of = self.archive.forcing_channels if name == "forcing" else self.archive.channels
        count = len(of if channels is None else channels)
        out, tensor = self._buffers.lend((len(positions), count, *self.archive.grid.shape))
        self.archive.read(name, positions, channels, out)
        return tensor

    def state(self, positions: np.ndarray) -> Tensor:
        """(N, C, H, W) normalised states."""
        return self.world.normalise(self.physical(positions), self.archive.times[positions])

    def forcing(self, positions: np.ndarray) -> np.ndarray:
        """(N, F, H, W) forcing anomalies in SI units."""
        fields = self.archive.read("forcing", positions)
        return self.world.forcing_anomaly(fields, self.archive.times[positions])

    def condition(self, positions: np.ndarray) -> Tensor:
        """(N, K, H, W) conditioning."""
        return self.world.condition(self.archive.times[positions], self.forcing(positions))


class States(Dataset):
    """Batches {state, cond} of single states.

    An item is asked for by the numbers of its samples: sample n is row n modulo the rows, so that
    later passes over the data have numbers of their own.
    """

    def __init__(self, reader: Reader, positions: np.ndarray) -> None:
        self.reader, self.positions = reader, positions

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, numbers: Any) -> Batch:
        return self.reader.normaliser(self.raw(numbers))

    def raw(self, numbers: Any) -> Batch:
        """A batch as it is read."""
        return self.reader.raw(self.positions[np.atleast_1d(numbers) % len(self)])


class Pairs(States):
    """Batches {state, target, cond, hours}: a state and the one some hours later.

    Args:
        reader: of the archive.
        positions: steps to start from.
        hours: leads to draw from, each a multiple of the archive's step.
        seed: of the leads.
    """

    def __init__(
        self, reader: Reader, positions: np.ndarray, hours: Sequence[int], seed: int = 0
    ) -> None:
        step = hours_of(reader.archive)
        if any(h % step or h <= 0 for h in hours):
            raise GapzooError(f"leads {list(hours)} h; each must be a multiple of {step} h")
        self.step, self.ahead, self.seed = step, np.array(sorted(hours)) // step, seed
        runs, inside = reader.archive.runs, np.zeros(len(reader.archive.times), bool)
        inside[positions] = True
        ends = np.minimum(positions + self.ahead[-1], len(inside) - 1)
        whole = (ends - positions == self.ahead[-1]) & inside[ends]
        unbroken = whole & (runs[positions] == runs[ends])
        super().__init__(reader, positions[unbroken])

    def raw(self, numbers: Any) -> Batch:
        """A batch as it is read."""
        numbers = np.atleast_1d(numbers)
        draws = [derive_seed(self.seed, "lead", n) % len(self.ahead) for n in numbers.tolist()]
        ahead = self.ahead[draws]
        start = self.positions[numbers % len(self)]
        return {
            **self.reader.raw(start),
            "physical_target": self.reader.physical(start + ahead),
            "calendar_target": self.reader.calendar(start + ahead),
            "hours": torch.from_numpy((ahead * self.step).astype(np.float32)),
        }


class Raw(Dataset):
    """The batches of a data set as they are read."""

    def __init__(self, data: States) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, numbers: Any) -> Batch:
        return self.data.raw(numbers)


class EpochSampler(Sampler[np.ndarray]):
    """``steps`` batches of sample numbers an epoch, a function of (seed, epoch) alone.

    Rows are drawn in passes over shuffled data; the number of a sample is ``pass * rows + row``.
    Each of ``world`` processes takes its part of the batch. A resumed run goes on at global step
    ``start``, in the middle of its epoch.
    """

    def __init__(
        self,
        rows: int,
        batch: int,
        steps: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
        start: int = 0,
    ) -> None:
        if batch % world:
            raise GapzooError(f"batch size {batch} does not divide by {world} devices")
        self.rows, self.batch, self.steps, self.seed = rows, batch, steps, seed
        self.rank, self.world, self.start, self.epoch = rank, world, start, 0

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning at the start of each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[np.ndarray]:
        first = self.epoch * self.steps
        for step in range(max(first, self.start), first + self.steps):
            yield self.batch_of(step)[self.rank :: self.world]

    def batch_of(self, step: int) -> np.ndarray:
        """(batch,) sample numbers of global step ``step``."""
        wanted = np.arange(step * self.batch, (step + 1) * self.batch)
        out = np.empty(self.batch, np.int64)
        for number in np.unique(wanted // self.rows):
            here = wanted // self.rows == number
            out[here] = number * self.rows + self._pass(int(number))[wanted[here] % self.rows]
        return out

    def _pass(self, number: int) -> np.ndarray:
        if getattr(self, "_last", (None,))[0] != number:
            order = np.random.default_rng(derive_seed(self.seed, "pass", number))
            self._last = number, order.permutation(self.rows)
        return self._last[1]


class ArchiveDataModule(lightning.LightningDataModule):
    """Training and validation batches of an archive.

    Args:
        archive: folder of the store.
        kind: ``states`` for a prior, ``pairs`` for a forecaster.
        variables: variables or channels to learn; all where None.
        train: first and last day.
        validate: first and last day.
        batch_size: of all devices together.
        steps_per_epoch: batches until validation and a checkpoint.
        validation_samples: evenly spread over the validation period.
        hours: leads of ``pairs``.
        seed: of the order of samples.
        ahead: batches read ahead.
        hold: copy the training states to the Trainer's device once (gapzoo.data.held).
        world: use this instead of the archive's own statistics (fine-tuning).
    """

    def __init__(
        self,
        archive: str,
        *,
        kind: str = "states",
        variables: Sequence[str] | None = None,
        train: tuple[str, str] = ("1979-01-01", "2003-12-31"),
        validate: tuple[str, str] = ("2004-01-01", "2005-12-31"),
        batch_size: int = 32,
        steps_per_epoch: int = 500,
        validation_samples: int = 256,
        hours: Sequence[int] = (6, 12, 18, 24),
        seed: int = 0,
        ahead: int = AHEAD,
        hold: bool = False,
        world: World | None = None,
    ) -> None:
        super().__init__()
        if kind not in ("states", "pairs"):
            raise GapzooError(f"data kind '{kind}'; it is 'states' or 'pairs'")
        self.archive = Archive(archive)
        self.world = world or world_of(self.archive, variables)
        self.kind, self.hours, self.seed = kind, hours, seed
        self.batch_size, self.steps_per_epoch = batch_size, steps_per_epoch
        self.validation_samples, self.ahead, self.hold = validation_samples, ahead, hold
        self._normaliser = Normaliser(self.world)
        self.periods = {"train": train, "validate": validate}
        self.world.details["train"] = list(train)

    def dataset(self, period: str, device: torch.device | None = None) -> States:
        """The data set of ``train`` or ``validate``, held on a device where one is given."""
        positions = self.archive.indices(*self.periods[period])
        reader = self._reader(positions, device)
        if self.kind == "pairs":
            return Pairs(reader, positions, self.hours, self.seed)
        return States(reader, positions)

    def _reader(self, positions: np.ndarray, device: torch.device | None) -> Reader:
        if device is None:
            return Reader(self.archive, self.world)
        from gapzoo.data.held import HeldReader

        return HeldReader(self.archive, self.world, positions, device)

    def train_dataloader(self) -> DataLoader:
        """``steps_per_epoch`` batches an epoch."""
        held = self.hold and self.trainer is not None
        data = self.dataset("train", self.trainer.strategy.root_device if held else None)  # type: ignore[union-attr]
        rank, size, start = 0, 1, 0
        if self.trainer is not None:
            rank, size = self.trainer.global_rank, self.trainer.world_size
            start = self.trainer.global_step * self.trainer.accumulate_grad_batches
        sampler = EpochSampler(
            len(data), self.batch_size, self.steps_per_epoch, self.seed, rank, size, start
        )
        return self._loader(data, sampler)

    def val_dataloader(self) -> DataLoader:
        """The same evenly spread samples every time."""
        data = self.dataset("validate")
        rows = np.linspace(0, len(data) - 1, min(self.validation_samples, len(data))).astype(int)
        batches = np.array_split(rows, max(1, len(rows) // self.batch_size))
        return self._loader(data, list(batches))

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Lightning calls this once a batch is on the device: normalise it there."""
        return self._normaliser(batch)

    def _loader(self, data: States, sampler: Any) -> DataLoader:
        """Batches as they are read where a Trainer will normalise them, else normalised."""
        trainer = self.trainer
        cuda = trainer is not None and trainer.strategy.root_device.type == "cuda"
        pin = cuda and type(data.reader) is Reader  # what a device holds is there
        source = data if trainer is None else Raw(data)
        return AheadLoader(
            source, ahead=self.ahead, batch_size=None, sampler=sampler, pin_memory=pin
        )
