"""Phases of a run before its first update is done: lines with seconds.

Without them, a minute of compiling looks like a program that stands still.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import jax

# What JAX reports of each program that XLA compiles or that is read instead.
_COMPILED = "/jax/core/compile/backend_compile_duration"
_FROM_CACHE = "/jax/compilation_cache/cache_hits"


class Compiled:
    """Programs compiled in a phase.

    Attributes:
      seconds: of compiling programs and of reading compiled ones.
      read: programs that came from the compilation cache.
    """

    def __init__(self) -> None:
        self.seconds, self.read = 0.0, 0


# A listener cannot be taken away again in all versions of JAX, so there is one.
_open: list[Compiled] = []


def _note_duration(event: str, duration_secs: float, **unused: str | int) -> None:
    for one in _open:
        one.seconds += duration_secs if event == _COMPILED else 0.0


def _note_event(event: str, **unused: str | int) -> None:
    for one in _open:
        one.read += event == _FROM_CACHE


jax.monitoring.register_event_duration_secs_listener(_note_duration)
jax.monitoring.register_event_listener(_note_event)


@contextmanager
def phase(say: Callable[[str], None], name: str, doing: str) -> Iterator[None]:
    """Says what is about to be done, and after it for how long it was done.

    Args:
      say: receives the two lines.
      name: of the phase, of 13 letters at most.
      doing: what takes the time, for the first line.
    """
    compiled, start = Compiled(), time.monotonic()
    say(f"{name:<14}{doing} ..")
    _open.append(compiled)
    try:
        yield
    finally:
        _open.remove(compiled)
    say(f"{name:<14}{took(time.monotonic() - start, compiled)}")


def took(seconds: float, compiled: Compiled) -> str:
    """`done in 41.0 s, of which compiling 38.2 s`."""
    text = f"done in {seconds:.1f} s"
    if compiled.seconds < 0.05:
        return text
    cache = f" ({compiled.read} from the cache)" if compiled.read else ""
    return f"{text}, of which compiling {min(compiled.seconds, seconds):.1f} s{cache}"


@contextmanager
def first_update(say: Callable[[str], None], step: int, first: int) -> Iterator[None]:
    """The phase of the first update of a process, which compiles; others say nothing.

    Args:
      say: receives the lines.
      step: number of the update.
      first: number of the first one.
    """
    if step > first:
        yield
        return
    with phase(say, "first update", f"step {step}, compiling what it needs"):
        yield
