"""Handles SIGINT and SIGTERM during a prediction: results so far are kept."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}


class StoppedError(KeyboardInterrupt):
    """A signal arrived during a wait. Not caught by a library's `except Exception`."""


class Stop:
    """Records whether a signal has arrived."""

    def __init__(self) -> None:
        self.asked: signal.Signals | None = None
        self._waits = False

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Marks code that a signal may interrupt, unlike the writing of a file.

        Raises:
          StoppedError: a signal arrives inside, or arrived before.
        """
        self._waits = True
        try:
            if self.asked:
                raise StoppedError
            yield
        finally:
            self._waits = False

    def told(self, number: int, frame: FrameType | None) -> None:
        """Handles a signal; the next one ends the process as usual."""
        self.asked = signal.Signals(number)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if self._waits:
            raise StoppedError


@contextmanager
def stoppable() -> Iterator[Stop]:
    """Installs the signal handlers; does nothing outside the main thread."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, stop.told) for number in SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
