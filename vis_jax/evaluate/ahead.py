"""Reads one item ahead in another thread, so that decoding and the device overlap."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Generic, TypeVar

T = TypeVar("T")


class Ahead(Generic[T]):
    """The items of an iterator, the next one being made meanwhile. A context manager.

    Left early, it does not wait for an item that is being made: it may never come.
    """

    def __init__(self, items: Iterator[T]):
        self._items = items
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="ahead")
        self._next: Future[T | None] = self._submit()

    def _submit(self) -> "Future[T | None]":
        return self._pool.submit(next, self._items, None)

    def ready(self) -> bool:
        """Whether `take` need not wait."""
        return self._next.done()

    def take(self) -> T | None:
        """The next item, None after the last; raises what making it raised."""
        item = self._next.result()
        if item is not None:
            self._next = self._submit()
        return item

    def __enter__(self) -> "Ahead[T]":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
