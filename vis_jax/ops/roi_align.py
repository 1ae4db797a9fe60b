"""RoIAlign: maps of fixed size from boxes, from one feature map or a pyramid.

Letters: S side of the output, L levels.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from vis_jax.ops.boxes import box_area
from vis_jax.typing import Array, Float, Float32, Int32


class Convention(NamedTuple):
    """Where a box lies on a map.

    Attributes:
      shift: cells that pixel centres are moved by; 0.5 puts them where they belong.
      least: smallest side of a box in cells.
    """

    shift: float
    least: float


ALIGNED = Convention(0.5, -math.inf)  # detectron2
LEGACY = Convention(0.0, 0.0)  # mmdetection before 2.0


def roi_levels(
    boxes: Float32[Array, "N 4"], *, levels: int, finest: float
) -> Int32[Array, "N"]:
    """Level 0 .. levels - 1 that the features of a box come from.

    Lin et al., "Feature pyramid networks", CVPR 2017, equation 1.

    Args:
      boxes: in pixels.
      levels: how many there are.
      finest: boxes of this side, in pixels, and up to twice as large are of level 0; 56
        for maps of stride 4, which is 224 on the fourth level.
    """
    # Comparisons instead of a logarithm, which is not exact at powers of two.
    side = jnp.sqrt(box_area(boxes)) / finest + 1e-6
    level = jnp.zeros(boxes.shape[0], jnp.int32)
    for power in range(1, levels):
        level += (side >= 2.0**power).astype(jnp.int32)
    return level


def pyramid_roi_align(
    features: Sequence[Float[Array, "_ _ C"]],
    boxes: Float32[Array, "N 4"],
    levels: Int32[Array, "N"],
    *,
    scales: tuple[float, ...],
    size: tuple[int, int],
    samples: int,
    convention: Convention,
) -> Float[Array, "N _ _ C"]:
    """Features of boxes, each from one map of a pyramid.

    He et al., "Mask R-CNN", ICCV 2017, section 3. All maps are one table of cells, so
    that the work does not grow with their number.

    Args:
      features: map of each level.
      boxes: in pixels; parts outside the map read zeros.
      levels: which map a box reads.
      scales: cells per pixel of each level.
      size: height and width of the output.
      samples: points per axis in each cell of the output, which is their mean.
      convention: where a box lies on the map.

    Returns:
      Array of the dtype of `features`.
    """
    heights = [m.shape[0] for m in features]
    widths = [m.shape[1] for m in features]
    starts = [0]
    for rows, columns in zip(heights, widths, strict=True):
        starts.append(starts[-1] + rows * columns)
    table = jnp.concatenate([m.reshape(-1, m.shape[-1]) for m in features])
    height, width, start = (
        jnp.array(x, jnp.int32)[levels] for x in (heights, widths, starts[:-1])
    )
    scaled = boxes * jnp.array(scales, jnp.float32)[levels][:, None] - convention.shift
    down = _axis_points(
        scaled[:, 1], scaled[:, 3], height, size[0], samples, convention
    )
    across = _axis_points(
        scaled[:, 0], scaled[:, 2], width, size[1], samples, convention
    )
    total = jnp.zeros((boxes.shape[0], *size, table.shape[-1]), table.dtype)
    for row, row_weight in down:
        for column, column_weight in across:
            index = row[:, :, None] * width[:, None, None] + column[:, None, :]
            weight = row_weight[:, :, None] * column_weight[:, None, :] / samples**2
            values = jnp.take(table, index + start[:, None, None], axis=0)
            total += values * weight[..., None].astype(table.dtype)
    return total


def _axis_points(
    low: Float32[Array, "N"],
    high: Float32[Array, "N"],
    length: Int32[Array, "N"],
    bins: int,
    samples: int,
    convention: Convention,
) -> list[tuple[Int32[Array, "N S"], Float32[Array, "N S"]]]:
    """Cells to read along one axis and their weights: two for each sample of a bin.

    Points up to one cell outside the map read its border, those beyond read zero.
    """
    extent = jnp.maximum(high - low, convention.least)
    last = (length - 1)[:, None]
    points = []
    for sample in range(samples):
        place = (np.arange(bins) + (sample + 0.5) / samples) / bins
        at = low[:, None] + extent[:, None] * jnp.asarray(place, jnp.float32)[None]
        inside = (at >= -1.0) & (at <= length[:, None].astype(jnp.float32))
        at = jnp.clip(at, 0.0, last.astype(jnp.float32))
        first = jnp.floor(at).astype(jnp.int32)
        part = at - first.astype(jnp.float32)
        points += [
            (first, jnp.where(inside, 1.0 - part, 0.0)),
            (jnp.minimum(first + 1, last), jnp.where(inside, part, 0.0)),
        ]
    return points
