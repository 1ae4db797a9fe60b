"""What gives the objects of a video frame by frame."""

from collections.abc import Iterable, Iterator
from typing import Protocol, runtime_checkable

import numpy as np

from vis_jax.results.clock import NO_CLOCK, Clock
from vis_jax.results.frame import FrameResult


@runtime_checkable
class Stream(Protocol):
    """Finds the objects of one video while its frames are read."""

    def __call__(
        self, frames: Iterable[np.ndarray], *, clock: Clock = NO_CLOCK
    ) -> Iterator[FrameResult]:
        """Yields every frame in order, once what is said of it is final.

        Args:
          frames: uint8 [H, W, 3] in order, all of one size. Another thread reads them;
            only resized copies are kept, of one clip, or of the whole video if the
            window of the system is that.
          clock: what it measures: reading, compiling, model, masks.
        """
        ...
