"""What a device holds is what would be read."""

import numpy as np
import pytest
import torch
from worlds import expect, toy_archive

from gapzoo.core import GapzooError
from gapzoo.data.held import AT_ONCE, HeldReader
from gapzoo.data.module import ArchiveDataModule, EpochSampler, Pairs, Reader, States, world_of

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    return toy_archive(tmp_path_factory.mktemp("held") / "toy.zarr")


def readers(archive, positions, **world):
    own = world_of(archive, **world)
    return Reader(archive, own), HeldReader(archive, own, positions, CPU)


def same(left, right):
    return left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)


@pytest.mark.parametrize("variables", [None, ["temperature"]])
def test_held_batches_are_those_that_are_read(archive, variables):
    positions = archive.indices("1979-02-01", "1980-03-01")
    assert len(positions) > AT_ONCE, "held in several parts"
    plain, held = readers(archive, positions, variables=variables)
    for kind in (lambda r: States(r, positions), lambda r: Pairs(r, positions, (24, 48), 3)):
        one, other = kind(plain), kind(held)
        assert len(one) == len(other) > 0
        for batch in EpochSampler(len(one), 8, 4, seed=1):
            assert same(one[batch], other[batch])


def test_a_batch_may_be_overwritten(archive):
    """Normalising works in place: a second pass must find what was held."""
    positions = archive.indices("1979-02-01", "1979-03-01")
    _, held = readers(archive, positions)
    data = States(held, positions)
    numbers = np.array([3, 0, 3])
    assert same(data[numbers], data[numbers])


def test_a_step_that_is_not_held_is_refused_by_its_time(archive):
    positions = archive.indices("1979-02-01", "1979-03-01")
    _, held = readers(archive, positions)
    with expect(GapzooError, str(archive.times[0]), "not held on cpu"):
        held.raw(np.array([0]))


def test_what_does_not_fit_says_how_much(archive, monkeypatch):
    def full(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    monkeypatch.setattr(torch.Tensor, "new_empty", full)
    with expect(GapzooError, "GB of", "CUDA out of memory", "hold=false"):
        readers(archive, archive.indices("1979-02-01", "1979-03-01"))


def test_only_a_trainer_has_it_held(archive):
    module = ArchiveDataModule(str(archive.path), hold=True)
    module.periods["train"] = ("1979-02-01", "1980-03-01")
    assert type(module.train_dataloader().dataset.reader) is Reader
