"""All that a method owes the rest of the library."""

from collections.abc import Callable
from typing import NamedTuple


class System(NamedTuple):
    """Four pure functions; `step` works on one video, clip by clip.

    The clips of a video have one shape, each begins behind the one before, and they
    leave out no frame. `start` makes the state before the first of them, of fixed size
    and only from the shapes of a clip: a system that reads a whole video as one clip
    keeps nothing and returns an empty tuple. What a step says of a frame and of a
    track is final once no later clip has it.
    """

    init: Callable  # (rng, Batch) -> variables
    loss: Callable  # (variables, Batch, rng) -> float32 scalar, LossAux
    start: Callable  # (Clip) -> Tracks, empty and of fixed size
    step: Callable  # (variables, Tracks, Clip) -> Tracks, Predictions
