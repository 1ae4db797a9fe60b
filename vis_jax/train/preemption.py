"""SIGTERM: the notice a scheduler gives before it takes a machine away."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import jax

from vis_jax.train.checkpoint import Checkpoints


@contextmanager
def notice(checkpoints: Checkpoints) -> Iterator[Callable[[int], bool]]:
    """Watches for SIGTERM while the context lasts.

    With several processes it is JAX that watches and lets them agree on a step. A
    thread other than the main one may not watch: there a SIGTERM ends the process.

    Yields:
      A function of the step, to be called after each one: True when it is time to save
      and leave.
    """
    if jax.process_count() > 1 or not _in_main_thread():
        yield checkpoints.preempted
        return
    asked = threading.Event()

    def ask(number: int, frame: FrameType | None) -> None:
        del number, frame
        asked.set()

    before = signal.signal(signal.SIGTERM, ask)
    try:
        yield lambda step: asked.is_set()
    finally:
        signal.signal(signal.SIGTERM, before)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
