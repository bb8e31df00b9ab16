"""Lent memory: used again only when nothing refers to it, and bounded."""

import gc

import numpy as np
import torch

from gapzoo.data.buffers import KEPT, Buffers


def lend(buffers, value, shape=(4, 8)):
    array, tensor = buffers.lend(shape)
    array[...] = value
    return tensor


def test_memory_comes_back_when_the_last_view_is_gone():
    buffers = Buffers()
    first = lend(buffers, 1.0)
    place, view = first.data_ptr(), first.flatten()[3:5]
    del first
    gc.collect()
    second = lend(buffers, 2.0)
    assert second.data_ptr() != place and view.tolist() == [1.0, 1.0]
    del view
    gc.collect()
    assert lend(buffers, 3.0).data_ptr() == place
    assert second.eq(2.0).all(), "and no other's memory is touched"


def test_arrays_of_the_tensor_keep_it_too():
    buffers = Buffers()
    array = lend(buffers, 1.0)[1:].numpy()
    others = [lend(buffers, 5.0) for _ in range(3)]
    assert np.array_equal(array, np.ones((3, 8))) and len(others) == 3


def test_what_is_kept_is_bounded_and_shapes_do_not_mix():
    buffers = Buffers()
    some = [lend(buffers, n) for n in range(KEPT + 4)]
    assert [t[0, 0].item() for t in some] == list(range(KEPT + 4))
    del some
    gc.collect()
    assert len(buffers._free[(4, 8)]) == KEPT
    assert lend(buffers, 0.0, (2, 2)).shape == (2, 2)
    assert torch.equal(lend(buffers, 7.0), torch.full((4, 8), 7.0))
