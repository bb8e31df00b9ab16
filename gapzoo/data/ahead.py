"""A DataLoader that reads ahead in one thread of this process.

Reading lets go of the interpreter's lock, so it goes on while the network works. Batches come in
the same order; so many as ``ahead`` of them are held, whatever the size of the data.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from queue import Empty, Full, Queue
from threading import Event, Thread
from typing import Any

from torch.utils.data import DataLoader

AHEAD = 2
WAIT = 0.1
"""Seconds after which a thread that waits looks whether it is still wanted."""
_END = object()


class AheadLoader(DataLoader):
    """A DataLoader, reading ahead.

    Args:
        dataset: the data set; with ``batch_size=None`` an item is a whole batch of tensors, which
            is handed on as it is.
        ahead: batches held in wait; 0 reads as they are asked for.
        options: of ``torch.utils.data.DataLoader``.
    """

    def __init__(self, dataset: Any, *, ahead: int = AHEAD, **options: Any) -> None:
        super().__init__(dataset, **options)
        self.ahead = ahead

    def __iter__(self) -> Any:
        batches = self._whole() if self._plain else super().__iter__()
        return read_ahead(batches, self.ahead) if self.ahead else batches

    @property
    def _plain(self) -> bool:
        """Whether an item is a whole batch that nothing has to be done to."""
        return (
            self.batch_size is None
            and self.batch_sampler is None
            and not (self.pin_memory or self.num_workers)
        )

    def _whole(self) -> Iterator[Any]:
        """The items themselves: torch's own iterator costs a tenth of reading a small batch."""
        for number in self.sampler:
            yield self.dataset[number]


def read_ahead(items: Iterator[Any], count: int) -> Iterator[Any]:
    """The items in order, up to ``count`` of them made before they are asked for.

    An error where an item is made is raised where it is asked for; the thread ends with the
    iterator, also one that is left in the middle.
    """
    made: Queue = Queue(count)
    over = Event()
    thread = Thread(target=_make, args=(items, made, over), name="read-ahead", daemon=True)
    thread.start()
    try:
        while True:
            item, error = made.get()
            if error is not None:
                raise error
            if item is _END:
                return
            yield item
    finally:
        over.set()
        with suppress(Empty):
            while True:
                made.get_nowait()
        thread.join()


def _make(items: Iterator[Any], made: Queue, over: Event) -> None:
    try:
        for item in items:
            _put((item, None), made, over)
            if over.is_set():
                return
        _put((_END, None), made, over)
    except Exception as error:  # noqa: BLE001  raised again where the item is asked for
        _put((None, error), made, over)


def _put(item: tuple[Any, Any], made: Queue, over: Event) -> None:
    while not over.is_set():
        with suppress(Full):
            made.put(item, timeout=WAIT)
            return
