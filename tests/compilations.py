"""Counts XLA compilations through JAX's monitoring events."""

from collections.abc import Iterator
from contextlib import contextmanager

import jax

EVENT = "/jax/core/compile/backend_compile_duration"

# Not all versions of JAX can remove a listener, so a single one is registered.
_open_counts: list[list[str]] = []


def _note(event: str, duration: float, **details: str | int) -> None:
    del duration
    if event == EVENT:
        for names in _open_counts:
            names.append(str(details.get("fun_name", "")))


jax.monitoring.register_event_duration_secs_listener(_note)


@contextmanager
def count_compilations() -> Iterator[list[str]]:
    """Yields a list that receives the name of each function as it is compiled.

    Names are empty with a version of JAX that does not report them; `len` is right.
    """
    names: list[str] = []
    _open_counts.append(names)
    try:
        yield names
    finally:
        _open_counts.remove(names)
