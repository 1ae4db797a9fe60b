"""All that a method owes the rest of the library."""

from collections.abc import Callable
from typing import NamedTuple


class System(NamedTuple):
    """Four pure functions; `step` works on one video.

    `start` and `step` share one state of fixed size: a system that reads a whole
    video in one step keeps nothing and returns an empty tuple.
    """

    init: Callable  # (rng, Batch) -> variables
    loss: Callable  # (variables, Batch, rng) -> float32 scalar, LossAux
    start: Callable  # () -> Tracks, empty and of fixed size
    step: Callable  # (variables, Tracks, Clip) -> Tracks, Predictions
