"""Base class of loggers, which receive the numbers and pictures of a run."""

from collections.abc import Mapping

import numpy as np


class Logger:
    """Keeps nothing; `vis_jax.training.loggers` has those that do."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Receives values by `group/name`, of one group."""

    def images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        """Receives uint8 images [H, W, 3] by name."""

    def close(self) -> None:
        """Writes what is not written yet."""
