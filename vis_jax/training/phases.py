"""Reports the start-up phases of a run with their durations.

Without them, a minute of compilation looks like a hang.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import jax

# JAX's events for programs compiled by XLA or read from the cache.
_COMPILED = "/jax/core/compile/backend_compile_duration"
_FROM_CACHE = "/jax/compilation_cache/cache_hits"


class CompileTime:
    """Compilation during a phase.

    Attributes:
      seconds: time spent compiling, and reading compiled programs.
      read: number of programs read from the compilation cache.
    """

    def __init__(self) -> None:
        self.seconds, self.read = 0.0, 0


# Not all versions of JAX can unregister a listener, so there is only one.
_open: list[CompileTime] = []


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
    """Prints a line when a phase starts and its duration when it ends.

    Args:
      say: receives the two lines.
      name: name of the phase, at most 13 letters.
      doing: description, for the first line.
    """
    compiled, start = CompileTime(), time.monotonic()
    say(f"{name:<14}{doing} ..")
    _open.append(compiled)
    try:
        yield
    finally:
        _open.remove(compiled)
    say(f"{name:<14}{took(time.monotonic() - start, compiled)}")


def took(seconds: float, compiled: CompileTime) -> str:
    """Formats "done in 41.0 s, of which compiling 38.2 s"."""
    text = f"done in {seconds:.1f} s"
    if compiled.seconds < 0.05:
        return text
    cache = f" ({compiled.read} from the cache)" if compiled.read else ""
    return f"{text}, of which compiling {min(compiled.seconds, seconds):.1f} s{cache}"


@contextmanager
def first_update(say: Callable[[str], None], step: int, first: int) -> Iterator[None]:
    """Reports the first update of a process, which compiles; silent for later ones.

    Args:
      say: receives the lines.
      step: number of this update.
      first: number of the first update.
    """
    if step > first:
        yield
        return
    with phase(say, "first update", f"step {step}, compiling what it needs"):
        yield
