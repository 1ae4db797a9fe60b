"""Several devices that run the same programs: one compiles each of them first."""

import threading
from collections.abc import Hashable, Iterator
from contextlib import contextmanager


class Turns:
    """Lets one thread run a program once before the others may.

    Tracing is then done once for all devices, and where compiled programs are kept
    (`commands.parts.keep_compilations`) and do not depend on the device, as on GPUs,
    the others read what the first one has compiled. Elsewhere they compile at once.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ran: dict[Hashable, threading.Event] = {}

    @contextmanager
    def turn(self, program: Hashable) -> Iterator[None]:
        """Waits while another thread is inside for the first time.

        Args:
          program: what tells programs apart, such as the shapes of arguments.
        """
        with self._lock:
            first = program not in self._ran
            ran = self._ran.setdefault(program, threading.Event())
        if not first:
            ran.wait()
        try:
            yield
        finally:
            ran.set()
