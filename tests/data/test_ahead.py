"""Reading ahead: in order, bounded, errors where they belong, no thread left behind."""

import threading
import time

import pytest
import torch
from torch.utils.data import DataLoader

from gapzoo.data.ahead import AheadLoader, read_ahead


def threads():
    return [t for t in threading.enumerate() if t.name == "read-ahead"]


def test_in_order_and_never_more_than_so_many_ahead():
    made, taken, most = [], 0, 0

    def items():
        for n in range(50):
            made.append(n)
            yield n

    for expected, item in enumerate(read_ahead(items(), 3)):
        time.sleep(0.001)
        taken += 1
        most = max(most, len(made) - taken)
        assert item == expected
    assert taken == 50 and 1 <= most <= 3 + 1, "those in the queue and the one in the hand"
    assert not threads()


def test_an_error_is_raised_where_its_item_is_asked_for():
    def items():
        yield 1
        raise OSError("disk")

    found = read_ahead(items(), 2)
    assert next(found) == 1
    with pytest.raises(OSError, match="disk"):
        next(found)
    assert not threads()


def test_left_in_the_middle_no_thread_goes_on():
    def items():
        while True:
            yield bytes(1000)

    found = read_ahead(items(), 2)
    next(found)
    assert threads()
    found.close()
    assert not threads()


@pytest.mark.parametrize("ahead", [0, 1, 4])
def test_a_loader_gives_the_same_whatever_it_reads_ahead(ahead):
    loader = AheadLoader(list(range(10)), ahead=ahead, batch_size=None, sampler=[3, 1, 2])
    assert list(loader) == [3, 1, 2] and len(loader) == 3
    assert list(loader) == [3, 1, 2], "and again"


def test_whole_batches_are_handed_on_and_samples_are_put_together():
    """As torch's own loader does, which is asked where there is something to do."""
    batches = [torch.full((2, 3), float(n)) for n in range(4)]
    found = list(AheadLoader(batches, ahead=1, batch_size=None, sampler=[2, 0]))
    assert [any(f is b for b in batches) for f in found] == [True, True]
    options = {"batch_size": 2, "shuffle": False}
    for one, two in zip(
        AheadLoader(batches, ahead=1, **options), DataLoader(batches, **options), strict=True
    ):
        assert torch.equal(one, two) and one.shape == (2, 2, 3)


def test_the_next_is_made_while_one_is_worked_on():
    made = [threading.Event() for _ in range(5)]

    def items():
        for event in made:
            event.set()
            yield event

    for n, _ in enumerate(read_ahead(items(), 2)):
        assert all(event.wait(60) for event in made[n + 1 : n + 2])
