"""Measures how long each part of a prediction takes."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager


class Clock:
    """Sums the seconds spent in named parts; safe to share between threads.

    Parts in different threads overlap, so the sum may exceed the elapsed time.

    Example:
      clock = Clock()
      with clock("reading"):
          frame = next(frames)
      clock.seconds  # {"reading": 0.02}
    """

    def __init__(self) -> None:
        self.frames_read = 0  # frames of the video read so far
        self.frames_done = 0  # frames whose outputs are all written, so far
        self._seconds: dict[str, float] = {}
        self._lock = threading.Lock()

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        """Times a `with` block, also if it raises."""
        begin = time.perf_counter()
        try:
            yield
        finally:
            self.add(part, time.perf_counter() - begin)

    def add(self, part: str, seconds: float) -> None:
        """Adds seconds measured elsewhere."""
        with self._lock:
            self._seconds[part] = self._seconds.get(part, 0.0) + seconds

    def read_frame(self) -> None:
        """Counts a frame as read."""
        self.frames_read += 1

    def finish_frame(self) -> None:
        """Counts a frame as done."""
        self.frames_done += 1

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds spent in each part so far, in order of their first start."""
        with self._lock:
            return dict(self._seconds)


class _NoClock(Clock):
    """Clock that measures nothing."""

    def read_frame(self) -> None:
        """Forgets it."""

    def finish_frame(self) -> None:
        """Forgets it."""

    def add(self, part: str, seconds: float) -> None:
        """Forgets them."""


NO_CLOCK = _NoClock()
