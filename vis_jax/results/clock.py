"""Where the seconds of a prediction go."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager


class Clock:
    """Adds up the seconds of named parts; several threads may use it at once.

    Parts of several threads overlap, so that their sum may exceed the time passed.

    Example:
      clock = Clock()
      with clock("decode"):
          frame = next(frames)
      clock.seconds  # {"decode": 0.02}
    """

    def __init__(self) -> None:
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

    @property
    def seconds(self) -> dict[str, float]:
        """The seconds of each part so far, in the order in which the parts began."""
        with self._lock:
            return dict(self._seconds)


class _NoClock(Clock):
    """Measures nothing."""

    def add(self, part: str, seconds: float) -> None:
        """Forgets them."""


NO_CLOCK = _NoClock()
