"""Spreads independent items over several workers, such as one for each device."""

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
_POLL = 0.1  # seconds between checks that a consumer still waits
_LONGEST_END = 10.0  # seconds for workers to end their items
_END = object()  # comes after the last item


def spread(
    items: Sequence[T], workers: Sequence[Callable[[T, Left], R]]
) -> Iterator[tuple[T, R]]:
    """Yields items with their results, in order of completion.

    Each item goes to the first free worker. A single worker runs in the caller's
    thread, when the next result is requested; several have a thread each.

    Args:
      items: to work on, in this order.
      workers: each maps an item to its result. Once `left()` is true, it may return or
        raise anything.

    Raises:
      Exception: the first that a worker raised; the other workers end.
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
    """The results of a video are no longer wanted."""


def leaving(stream: Stream, left: Left) -> Stream:
    """Wraps a stream to raise LeftError at the next frame once `left()` is true."""

    def results(
        frames: Iterable[np.ndarray], *, clock: Clock = NO_CLOCK
    ) -> Iterator[FrameResult]:
        for frame in stream(frames, clock=clock):
            if left():
                raise LeftError
            yield frame

    return results


class _Shared:
    """State shared by the workers' threads."""

    def __init__(self, items: Sequence, workers: int) -> None:
        self.left = threading.Event()
        self._items, self._taking = iter(items), threading.Lock()
        self._done: queue.Queue = queue.Queue(workers)

    def results(self, at_work: int) -> Iterator[tuple]:
        """Yields the workers' results until all workers have ended."""
        while at_work:
            done = self._done.get()
            if isinstance(done, BaseException):
                raise done
            if done is None:
                at_work -= 1
            else:
                yield done

    def work(self, worker: Callable) -> None:
        """Runs a worker in its thread; puts None at the end, or an error."""
        try:
            while not self.left.is_set():
                with self._taking:
                    item = next(self._items, _END)
                if item is _END:
                    break
                self._put((item, worker(item, self.left.is_set)))
            self._put(None)
        except BaseException as error:  # any exception: the caller re-raises it
            self._put(error)

    def _put(self, done: tuple | BaseException | None) -> None:
        while not self.left.is_set():
            with contextlib.suppress(queue.Full):
                self._done.put(done, timeout=_POLL)
                break
