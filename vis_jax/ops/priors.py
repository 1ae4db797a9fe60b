"""Reference boxes of YOLACT, relative to the image.

Letters: P priors, ordered by level, row, column, ratio.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from vis_jax.typing import Array, Float32


class PriorGrid(NamedTuple):
    """Geometry of the priors of all levels.

    Attributes:
      sides: side of each level's square prior, in pixels of an image with height and
        width `divisor`.
      ratios: width / height.
      divisor: pixels.
      square: set the height to the width for every ratio, as in YOLACT on COCO.
    """

    sides: tuple[float, ...]
    ratios: tuple[float, ...]
    divisor: float
    square: bool


def yolact_priors(
    sizes: Sequence[tuple[int, int]], grid: PriorGrid
) -> Float32[Array, "P 4"]:
    """Returns centre x and y, width and height of all priors, relative to the image.

    Bolya et al., "YOLACT", ICCV 2019; `PredictionModule.make_priors` of its code.
    Priors may extend beyond the image.

    Args:
      sizes: height and width of the map of each level.
      grid: geometry of the priors.

    Raises:
      ValueError: the numbers of levels differ.
    """
    if len(sizes) != len(grid.sides):
        raise ValueError(f"sizes: expected {len(grid.sides)} levels, got {len(sizes)}")
    root = np.sqrt(np.asarray(grid.ratios, np.float64))
    every = []
    for (height, width), side in zip(sizes, grid.sides, strict=True):
        widths = side * root / grid.divisor
        heights = widths if grid.square else side / root / grid.divisor
        level = np.empty((height, width, len(root), 4))
        level[..., 0] = ((np.arange(width) + 0.5) / width).reshape(1, -1, 1)
        level[..., 1] = ((np.arange(height) + 0.5) / height).reshape(-1, 1, 1)
        level[..., 2], level[..., 3] = widths, heights
        every.append(level.reshape(-1, 4))
    return jnp.asarray(np.concatenate(every), jnp.float32)
