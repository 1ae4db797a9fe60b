"""Profiles a window of updates with JAX's profiler."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import jax

from vis_jax.paths import written_locally
from vis_jax.training.state import TrainState

FOLDER = "profile"


class ProfileWindow(NamedTuple):
    """Range of updates to profile, inclusive; the first of a run is 1."""

    first: int
    last: int


@contextmanager
def profiled(
    window: ProfileWindow | None, folder: str
) -> Iterator[Callable[[int, TrainState], None]]:
    """Writes a trace of the window for TensorBoard or Perfetto.

    Yields:
      A function to call before each update with its number and the state, which is
      awaited before the trace starts or stops.
    """
    if window is None:
        yield lambda step, state: None
        return
    running = False

    def before_update(step: int, state: TrainState) -> None:
        nonlocal running
        if running and step == window.last + 1:
            jax.block_until_ready(state)
            jax.profiler.stop_trace()
            running = False
        elif step == window.first:
            jax.block_until_ready(state)
            jax.profiler.start_trace(local)
            running = True

    with written_locally(folder) as local:
        try:
            yield before_update
        finally:
            if running:
                jax.profiler.stop_trace()
