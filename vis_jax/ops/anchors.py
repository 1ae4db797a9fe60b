"""Anchor boxes at every cell of feature maps.

Letters: A anchors per cell. Anchors are ordered by level, row, column, ratio.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from vis_jax.typing import Array, Bool, Float32, Int32


class AnchorGrid(NamedTuple):
    """Geometry of the anchors of all levels.

    Attributes:
      sides: side of the square anchor of each level, in pixels.
      ratios: height / width; the area equals the square's.
      strides: (vertical, horizontal) pixels of a cell, for each level.
      centre: anchor centre within a cell, in strides: 0 in detectron2 and torchvision,
        0.5 in mmdetection before 2.0.
      rounded: round the corners around the first cell to whole pixels; not in
        detectron2.
    """

    sides: tuple[float, ...]
    ratios: tuple[float, ...]
    strides: tuple[tuple[int, int], ...]
    centre: float
    rounded: bool


def cell_anchors(
    side: float, stride: tuple[int, int], grid: AnchorGrid
) -> Float32[np.ndarray, "A 4"]:
    """Returns the anchors of a level's first cell, one per ratio, in pixels."""
    root = np.sqrt(np.asarray(grid.ratios, np.float64))
    half = np.stack([side / root, side * root], axis=-1) / 2
    centre = grid.centre * np.asarray(stride[::-1], np.float64)[None]
    anchors = np.concatenate([centre - half, centre + half], axis=-1)
    return (np.round(anchors) if grid.rounded else anchors).astype(np.float32)


def make_anchors(
    sizes: Sequence[tuple[int, int]], grid: AnchorGrid
) -> Float32[Array, "N 4"]:
    """Returns the anchors of all levels, ordered by level, row, column and ratio.

    Ren et al., "Faster R-CNN", NeurIPS 2015, section 3.1.

    Args:
      sizes: height and width of each level's map.
      grid: geometry of the anchors.

    Raises:
      ValueError: the numbers of sides, strides and maps differ.
    """
    counts = (len(sizes), len(grid.sides), len(grid.strides))
    if len(set(counts)) != 1:
        raise ValueError(
            "anchors: expected as many maps as sides and strides,"
            " got {}, {} and {}".format(*counts)
        )
    levels = []
    for (height, width), side, stride in zip(
        sizes, grid.sides, grid.strides, strict=True
    ):
        y, x = np.mgrid[:height, :width].astype(np.float32)
        shift = np.stack([x * stride[1], y * stride[0]] * 2, axis=-1)[:, :, None]
        cell = cell_anchors(side, stride, grid)[None, None]
        levels.append((shift + cell).reshape(-1, 4))
    return jnp.asarray(np.concatenate(levels))


def inside(anchors: Float32[Array, "N 4"], size: Int32[Array, "2"]) -> Bool[Array, "N"]:
    """Returns which anchors lie inside an image; mmdetection trains on no others.

    Args:
      anchors: in pixels.
      size: height and width of the image's content in pixels.
    """
    limits = size[::-1].astype(jnp.float32)[None]
    return jnp.all((anchors[:, :2] >= 0) & (anchors[:, 2:] <= limits), axis=1)
