"""RoIAlign: fixed-size features of boxes, from one feature map or a pyramid.

Letters: S side of the output, L levels.
"""

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vis_jax.ops.boxes import box_area
from vis_jax.typing import Array, Float, Float32, Int32

_AT_ONCE = 2**22  # elements that `dense_roi_align` computes at a time


class Convention(NamedTuple):
    """Alignment of boxes on a feature map.

    Attributes:
      shift: shift of pixel centres in cells; 0.5 is exact alignment.
      least: smallest side of a box in cells.
    """

    shift: float
    least: float


ALIGNED = Convention(0.5, -math.inf)  # detectron2
LEGACY = Convention(0.0, 0.0)  # mmdetection before 2.0
UNALIGNED = Convention(0.0, 1.0)  # torchvision's detectors


class Adaptive(NamedTuple):
    """Number of sampling points per axis: map cells per output cell, rounded up.

    detectron2's choice ("sampling_ratio" 0). Empty boxes give zeros.

    Attributes:
      most: most points per axis; larger boxes are sampled at this many, evenly spaced.
        The cost grows with its square.
    """

    most: int


def roi_levels(
    boxes: Float32[Array, "N 4"], *, levels: int, finest: float
) -> Int32[Array, "N"]:
    """Returns the pyramid level 0 .. levels - 1 of each box.

    Lin et al., "Feature pyramid networks", CVPR 2017, equation 1.

    Args:
      boxes: in pixels.
      levels: number of levels.
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
    samples: int | Adaptive,
    convention: Convention,
) -> Float[Array, "N _ _ C"]:
    """Pools features of boxes, each from one level of a pyramid.

    He et al., "Mask R-CNN", ICCV 2017, section 3. All maps form one table of cells, so
    the cost does not grow with the number of levels.

    Args:
      features: map of each level.
      boxes: in pixels; zero padding outside the map.
      levels: level of each box.
      scales: cells per pixel of each level.
      size: height and width of the output.
      samples: points per axis and output cell, averaged; fixed, or per box and axis.
      convention: alignment of boxes on the map.

    Returns:
      Array with the dtype of `features`.
    """
    table = jnp.concatenate([m.reshape(-1, m.shape[-1]) for m in features])
    height, width, start = (
        jnp.array(x, jnp.int32)[levels] for x in _table_layout(features)
    )
    scaled = boxes * jnp.array(scales, jnp.float32)[levels][:, None] - convention.shift
    low, high = scaled[:, :2], scaled[:, 2:]
    down, across = (
        _axis_points(low[:, axis], high[:, axis], length, bins, samples, convention)
        for axis, length, bins in ((1, height, size[0]), (0, width, size[1]))
    )

    def add(total: Array, row: _Reading, column: _Reading) -> Array:
        index = row.cells[:, :, None] * width[:, None, None] + column.cells[:, None, :]
        weight = row.weights[:, :, None] * column.weights[:, None, :]
        values = jnp.take(table, index + start[:, None, None], axis=0)
        return total + values * weight[..., None].astype(table.dtype)

    total = jnp.zeros((boxes.shape[0], *size, table.shape[-1]), table.dtype)
    if isinstance(samples, Adaptive):
        return _sum_over_pairs(add, total, down, across)
    for row, column in itertools.product(down, across):
        total = add(total, row, column)
    return total


def _table_layout(
    features: Sequence[Float[Array, "_ _ C"]],
) -> tuple[list[int], list[int], list[int]]:
    """Returns height, width and first row in the table of cells, of each level."""
    heights, widths = ([m.shape[axis] for m in features] for axis in (0, 1))
    starts = [0]
    for rows, columns in zip(heights[:-1], widths[:-1], strict=True):
        starts.append(starts[-1] + rows * columns)
    return heights, widths, starts


def dense_roi_align(
    features: Float[Array, "H W C"],
    boxes: Float32[Array, "N 4"],
    *,
    scale: float,
    size: tuple[int, int],
    parts: int,
    samples: int | Adaptive,
    convention: Convention,
) -> Float[Array, "N _ _ C"]:
    """Same as `pyramid_roi_align` on one map, by matrix products instead of gathers.

    RoIAlign is separable: each axis has a matrix of weights from map cells to output
    cells. The cost grows with the map size, so this suits coarse maps; the gradient
    needs no scatter-add, which is slow on CPUs.

    Args:
      features: the map.
      boxes: in pixels; zero padding outside the map.
      scale: cells per pixel.
      size: height and width of the output.
      parts: each output cell is the mean of parts x parts equal sub-cells, each with
        its own points.
      samples, convention: see `pyramid_roi_align`.
    """
    scaled = boxes * scale - convention.shift
    weights = functools.partial(
        _dense_weights, parts=parts, samples=samples, convention=convention
    )
    rows, columns = (
        weights(scaled[:, axis], scaled[:, axis + 2], length=length, bins=bins)
        for axis, length, bins in zip((1, 0), features.shape[:2], size, strict=True)
    )
    rows, columns = rows.astype(features.dtype), columns.astype(features.dtype)

    def one(axes: tuple[Array, Array]) -> Float[Array, "_ _ C"]:
        return jnp.einsum(
            "ih,hwc,jw->ijc",
            axes[0],
            features,
            axes[1],
            precision=jax.lax.Precision.HIGHEST,
            optimize="optimal",
        )

    # All boxes at once would need size[0] x W x C elements each.
    each = size[0] * math.prod(features.shape[1:])
    return jax.lax.map(one, (rows, columns), batch_size=max(1, _AT_ONCE // each))


class _Reading(NamedTuple):
    """Cells sampled along one axis for every bin of a box, and their weights."""

    cells: Int32[Array, "*lead N S"]
    weights: Float32[Array, "*lead N S"]


def _sum_over_pairs(
    add: Callable[[Array, _Reading, _Reading], Array],
    total: Array,
    down: list[_Reading],
    across: list[_Reading],
) -> Array:
    """Sums over all pairs in loops: a small program, whatever their number."""
    rows, columns = (
        jax.tree.map(lambda *x: jnp.stack(x), *axis) for axis in (down, across)
    )

    def along(total: Array, row: _Reading) -> tuple[Array, None]:
        def once(total: Array, column: _Reading) -> tuple[Array, None]:
            return add(total, row, column), None

        return jax.lax.scan(once, total, columns)[0], None

    return jax.lax.scan(along, total, rows)[0]


def _axis_points(
    low: Float32[Array, "N"],
    high: Float32[Array, "N"],
    length: Int32[Array, "N"],
    bins: int,
    samples: int | Adaptive,
    convention: Convention,
) -> list[_Reading]:
    """Returns cells and weights along one axis: two for each sample of a bin.

    Points up to one cell outside the map read its border, those further out read zero.
    """
    extent = jnp.maximum(high - low, convention.least)
    last = (length - 1)[:, None]
    readings = []
    for place, share in _samples(extent, bins, samples):
        at = low[:, None] + extent[:, None] * place
        inside = (at >= -1.0) & (at <= length[:, None].astype(jnp.float32))
        share = jnp.where(inside, share, 0.0)
        at = jnp.clip(at, 0.0, last.astype(jnp.float32))
        first = jnp.floor(at).astype(jnp.int32)
        part = at - first.astype(jnp.float32)
        readings += [
            _Reading(first, (1.0 - part) * share),
            _Reading(jnp.minimum(first + 1, last), part * share),
        ]
    return readings


def _dense_weights(
    low: Float32[Array, "N"],
    high: Float32[Array, "N"],
    *,
    length: int,
    bins: int,
    parts: int,
    samples: int | Adaptive,
    convention: Convention,
) -> Float32[Array, "N S H"]:
    """Returns the weight of an axis's cells in every bin; see `dense_roi_align`."""
    count = jnp.full(low.shape, length, jnp.int32)
    readings = _axis_points(low, high, count, bins * parts, samples, convention)
    cells = jnp.arange(length, dtype=jnp.int32).reshape(1, 1, -1)
    weights = jnp.zeros((len(low), bins * parts, length), jnp.float32)
    for reading in readings:
        found = reading.cells[..., None] == cells
        weights += jnp.where(found, reading.weights[..., None], 0.0)
    return weights.reshape(len(low), bins, parts, length).mean(axis=2)


class _Sample(NamedTuple):
    """One sampling point of every bin, or of none.

    Attributes:
      place: position along the box, in [0, 1].
      share: weight in the mean of its bin; 0 where the point does not exist.
    """

    place: Float32[Array, "#N S"]
    share: Float32[Array, "#N #S"]


def _samples(
    extent: Float32[Array, "N"], bins: int, samples: int | Adaptive
) -> list[_Sample]:
    """Returns the sampling points of boxes that are `extent` map cells long."""
    if isinstance(samples, int):
        places = [
            (np.arange(bins) + (number + 0.5) / samples) / bins
            for number in range(samples)
        ]
        share = jnp.full((1, 1), 1 / samples, jnp.float32)
        return [_Sample(jnp.asarray(x, jnp.float32)[None], share) for x in places]
    # Point k of a bin exists where the bin is more than k cells long.
    numbers = np.arange(samples.most, dtype=np.float32)[:, None]
    found = (extent[None] > bins * numbers)[..., None]
    count = jnp.maximum(found.sum(axis=0), 1).astype(jnp.float32)
    first = jnp.arange(bins, dtype=jnp.float32)[None]
    return [
        _Sample(
            (first + (number + 0.5) / count) / bins,
            jnp.where(found[number], 1 / count, 0.0),
        )
        for number in range(samples.most)
    ]
