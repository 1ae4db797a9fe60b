"""SIGTERM, SIGUSR1 and Ctrl-C: a run saves before it leaves.

SIGTERM is the notice that Kubernetes, Cloud TPU and most schedulers give before they
take a machine away; jobs of Slurm often ask for SIGUSR1 (`--signal=USR1@180`).
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
    """A signal came where the run can be left at once."""


class Notice:
    """Whether a run has been told to leave.

    Attributes:
      last: whether no more steps follow.
      asked: the signal that this process has received, None if there was none.
    """

    def __init__(self, checkpoints: Checkpoints) -> None:
        self._checkpoints = checkpoints
        self._at_once = False
        self.last = False
        self.asked: signal.Signals | None = None

    def reached(self, step: int) -> bool:
        """To be called after each step: True when it is time to save and leave."""
        if has_company() or not _in_main_thread():
            return self._checkpoints.preempted(step)
        return self.asked is not None

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """A signal inside ends what is done, which can be taken up again later.

        Raises:
          StopNow: one came.
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
        """What to call the signal."""
        return NAMES[self.asked or signal.SIGTERM]

    @property
    def code(self) -> int:
        """The exit code that says so: 130 after Ctrl-C, 143 after a scheduler's."""
        return 128 + (signal.SIGINT if self.asked == signal.SIGINT else signal.SIGTERM)

    def told(self, number: int, frame: FrameType | None) -> None:
        """The handler of the signals."""
        del frame
        at_once = self._at_once and (self.last or not has_company())
        if number == signal.SIGINT and self.asked is None and not at_once:
            os.write(2, _WAIT)  # not by `print`, which may be at work just now
        self.asked = self.asked or signal.Signals(number)
        if number == signal.SIGINT:  # the second one ends the process at once
            signal.signal(signal.SIGINT, signal.default_int_handler)
        if number != signal.SIGTERM and has_company() and not at_once:
            os.kill(os.getpid(), signal.SIGTERM)  # JAX tells the other processes
        if at_once:
            raise StopNow


@contextmanager
def notice(checkpoints: Checkpoints) -> Iterator[Notice]:
    """Watches for the signals while the context lasts.

    With several processes it is JAX that watches for SIGTERM and lets them agree on a
    step. A thread other than the main one may not watch: there a SIGTERM ends the
    process.
    """
    found = Notice(checkpoints)
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


def no_more_steps(notice: Notice) -> None:
    """Before the last evaluation of several processes: a SIGTERM need not be agreed on.

    The first process evaluates and leaves in order. The others wait for it, deep in
    JAX, where no handler of Python would be called: they end as if they had none.
    """
    notice.last = True
    if has_company() and _in_main_thread():
        first = jax.process_index() == 0
        signal.signal(signal.SIGTERM, notice.told if first else signal.SIG_DFL)


def how_to_go_on(workdir: str) -> str:
    """The command; the settings of the run are in its folder."""
    if has_company():  # each process has its own words and environment
        return "start again to go on"
    return f"to go on: python -m vis_jax.main --workdir {shlex.quote(workdir)}"


def has_company() -> bool:
    """Whether there are other processes."""
    return jax.process_count() > 1


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
