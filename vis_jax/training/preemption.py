"""Handles SIGTERM, SIGUSR1 and Ctrl-C: a run saves before it exits.

Kubernetes, Cloud TPU and most schedulers send SIGTERM before preempting a machine;
Slurm jobs often request SIGUSR1 (`--signal=USR1@180`).
"""

import os
import shlex
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import jax

from vis_jax.training.checkpoint import Checkpoints

NAMES = {
    signal.SIGTERM: "SIGTERM",
    signal.SIGUSR1: "SIGUSR1",
    signal.SIGINT: "Ctrl-C",
}
_WAIT = b"\nCtrl-C: saving after this update; once more ends at once, without saving\n"


class StopNow(BaseException):
    """A signal arrived where the run can exit at once."""


class StopRequest:
    """Records a request to stop the run.

    Attributes:
      last: whether no more updates follow.
      asked: signal received by this process, or None.
    """

    def __init__(self, checkpoints: Checkpoints) -> None:
        self._checkpoints = checkpoints
        self._at_once = False
        self.last = False
        self.asked: signal.Signals | None = None

    def reached(self, step: int) -> bool:
        """Returns True when it is time to save and exit; call after each step."""
        if has_company() or not _in_main_thread():
            return self._checkpoints.preempted(step)
        return self.asked is not None

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Lets a signal interrupt the enclosed work, which can be repeated later.

        Raises:
          StopNow: a signal arrived.
        """
        self._at_once = True
        try:
            if self.asked is not None and not has_company():
                raise StopNow
            yield
        finally:
            self._at_once = False

    @property
    def name(self) -> str:
        """Name of the signal, for messages."""
        return NAMES[self.asked or signal.SIGTERM]

    @property
    def code(self) -> int:
        """Exit code: 130 after Ctrl-C, 143 after a scheduler's signal."""
        return 128 + (signal.SIGINT if self.asked == signal.SIGINT else signal.SIGTERM)

    def told(self, number: int, frame: FrameType | None) -> None:
        """Handles the signals."""
        del frame
        at_once = self._at_once and (self.last or not has_company())
        if number == signal.SIGINT and self.asked is None and not at_once:
            os.write(2, _WAIT)  # `print` is not reentrant
        self.asked = self.asked or signal.Signals(number)
        if number == signal.SIGINT:  # a second one ends the process at once
            signal.signal(signal.SIGINT, signal.default_int_handler)
        if number != signal.SIGTERM and has_company() and not at_once:
            os.kill(os.getpid(), signal.SIGTERM)  # JAX tells the other processes
        if at_once:
            raise StopNow


@contextmanager
def notice(checkpoints: Checkpoints) -> Iterator[StopRequest]:
    """Installs the signal handlers for the duration of the context.

    With several processes, JAX handles SIGTERM and lets them agree on a step. Outside
    the main thread handlers cannot be installed, so SIGTERM ends the process.
    """
    found = StopRequest(checkpoints)
    if not _in_main_thread():
        yield found
        return
    watched: list[signal.Signals] = [n for n in NAMES if n != signal.SIGTERM]
    if not has_company():
        watched.append(signal.SIGTERM)
    before = {number: signal.signal(number, found.told) for number in watched}
    try:
        yield found
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def no_more_steps(notice: StopRequest) -> None:
    """Adjusts signal handlers for the last evaluation, when no updates follow.

    The first process evaluates and exits cleanly. The others wait inside JAX, where no
    Python handler would run, so the default handlers end them.
    """
    notice.last = True
    if has_company() and _in_main_thread():
        first = jax.process_index() == 0
        signal.signal(signal.SIGTERM, notice.told if first else signal.SIG_DFL)


def how_to_go_on(workdir: str) -> str:
    """Describes how to resume; the settings are in the folder of the run."""
    if has_company():  # each process has its own arguments and environment
        return "start again to go on"
    return f"to go on: python -m vis_jax.main --workdir {shlex.quote(workdir)}"


def has_company() -> bool:
    """Returns whether there are other processes."""
    return jax.process_count() > 1


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
