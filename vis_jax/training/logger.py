"""Base class of loggers, which receive scalars and images of a run."""

from collections.abc import Mapping

import numpy as np


class Logger:
    """Discards everything; `vis_jax.training.loggers` has working subclasses."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Receives values of one group, keyed by `group/name`."""

    def images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        """Receives uint8 images [H, W, 3] by name."""

    def close(self) -> None:
        """Flushes and closes."""
