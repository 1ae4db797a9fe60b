"""Measures the time of the parts of a prediction."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager


class Clock:
    """Adds up the seconds of named parts; several threads may use it at once.

    Parts of several threads overlap, so that their sum may exceed the time passed.

    Example:
      clock = Clock()
      with clock("reading"):
          frame = next(frames)
      clock.seconds  # {"reading": 0.02}
    """

    def __init__(self) -> None:
        self.frames_read = 0  # so far, of the video
        self.frames_done = 0  # so far: all that is wanted of them is written
        self._seconds: dict[str, float] = {}
        self._lock = threading.Lock()

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        """Adds the time spent inside, also if it ends with an error."""
        begin = time.perf_counter()
        try:
            yield
        finally:
            self.add(part, time.perf_counter() - begin)

    def add(self, part: str, seconds: float) -> None:
        """Adds seconds that were measured elsewhere."""
        with self._lock:
            self._seconds[part] = self._seconds.get(part, 0.0) + seconds

    def read_frame(self) -> None:
        """Counts a frame that was read."""
        self.frames_read += 1

    def finish_frame(self) -> None:
        """Counts a frame that is done."""
        self.frames_done += 1

    @property
    def seconds(self) -> dict[str, float]:
        """The seconds of each part so far, in the order in which the parts began."""
        with self._lock:
            return dict(self._seconds)


class _NoClock(Clock):
    """Measures nothing."""

    def read_frame(self) -> None:
        """Forgets it."""

    def finish_frame(self) -> None:
        """Forgets it."""

    def add(self, part: str, seconds: float) -> None:
        """Forgets them."""


NO_CLOCK = _NoClock()
