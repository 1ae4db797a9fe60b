"""Work on independent items by several workers at once, such as one for each device."""

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

import numpy as np

from vis_jax.results.clock import NO_CLOCK, Clock
from vis_jax.results.frame import FrameResult, Stream

T = TypeVar("T")
R = TypeVar("R")
Left = Callable[[], bool]  # True once the results are no longer wanted
_POLL = 0.1  # seconds between two looks at whether anybody still waits
_LONGEST_END = 10.0  # seconds that workers have to end their items
_END = object()  # comes after the last item


def spread(
    items: Sequence[T], workers: Sequence[Callable[[T, Left], R]]
) -> Iterator[tuple[T, R]]:
    """Yields items with their results, in the order in which they are done.

    Each item goes to the worker that is free first. One worker works in the thread of
    the caller, when the next result is asked for; several have a thread each.

    Args:
      items: what to work on, in the order of their beginnings.
      workers: each maps an item to its result. If `left()` is true, it may end with
        anything.

    Raises:
      Exception: what a worker raised first; the others end.
    """
    workers = workers[: max(len(items), 1)]
    if len(workers) == 1:
        for item in items:
            yield item, workers[0](item, lambda: False)
        return
    shared = _Shared(items, len(workers))
    threads = [
        threading.Thread(target=shared.work, args=(worker,), daemon=True)
        for worker in workers
    ]
    for thread in threads:
        thread.start()
    try:
        yield from shared.results(len(threads))
    finally:
        shared.left.set()
        end = time.monotonic() + _LONGEST_END
        for thread in threads:
            thread.join(max(end - time.monotonic(), 0.0))


class LeftError(Exception):
    """Nobody waits for the results of a video any more."""


def leaving(stream: Stream, left: Left) -> Stream:
    """A stream that raises LeftError at the next frame once `left()` is true."""

    def results(
        frames: Iterable[np.ndarray], *, clock: Clock = NO_CLOCK
    ) -> Iterator[FrameResult]:
        for frame in stream(frames, clock=clock):
            if left():
                raise LeftError
            yield frame

    return results


class _Shared:
    """What the threads of workers have in common."""

    def __init__(self, items: Sequence, workers: int) -> None:
        self.left = threading.Event()
        self._items, self._taking = iter(items), threading.Lock()
        self._done: queue.Queue = queue.Queue(workers)

    def results(self, at_work: int) -> Iterator[tuple]:
        """What the workers hand over, until all of them have ended."""
        while at_work:
            done = self._done.get()
            if isinstance(done, BaseException):
                raise done
            if done is None:
                at_work -= 1
            else:
                yield done

    def work(self, worker: Callable) -> None:
        """The thread of a worker; hands over None at the end, or an error."""
        try:
            while not self.left.is_set():
                with self._taking:
                    item = next(self._items, _END)
                if item is _END:
                    break
                self._put((item, worker(item, self.left.is_set)))
            self._put(None)
        except BaseException as error:  # of any kind: the caller raises it
            self._put(error)

    def _put(self, done: tuple | BaseException | None) -> None:
        while not self.left.is_set():
            with contextlib.suppress(queue.Full):
                self._done.put(done, timeout=_POLL)
                break
