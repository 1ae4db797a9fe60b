"""Prefetches items in another thread, to overlap decoding with the device."""

import contextlib
import queue
import threading
from collections.abc import Iterator
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")
_POLL = 0.1  # seconds between checks that a consumer still waits


class _End(NamedTuple):
    """Marks the end of the items."""

    error: BaseException | None  # raised while an item was made


class Ahead(Generic[T]):
    """Iterator that prefetches one item."""

    def __init__(self, items: Iterator[T]) -> None:
        self._ready: queue.Queue[T | _End] = queue.Queue(1)
        self._left = threading.Event()
        threading.Thread(
            target=self._fill, args=(items,), name="ahead", daemon=True
        ).start()

    def _fill(self, items: Iterator[T]) -> None:
        error = None
        try:
            for item in items:
                self._put(item)
                if self._left.is_set():
                    return
        except BaseException as raised:  # any exception: `take` re-raises it
            error = raised
        self._put(_End(error))

    def _put(self, item: "T | _End") -> None:
        while not self._left.is_set():
            with contextlib.suppress(queue.Full):
                self._ready.put(item, timeout=_POLL)
                break

    def ready(self) -> bool:
        """Returns whether `take` would return at once."""
        return not self._ready.empty()

    def take(self) -> T | None:
        """Returns the next item, or None after the last; re-raises its error.

        Must not be called again after None or an error.
        """
        item = self._ready.get()
        if not isinstance(item, _End):
            return item
        if item.error is not None:
            raise item.error
        return None

    def close(self) -> None:
        """Stops reading, without waiting for an item that is being made.

        That item may never come; the process does not wait for it at exit either.
        """
        self._left.set()
