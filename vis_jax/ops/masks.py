"""Mask ops: cropping to boxes, pasting, overlap, and mask pooling."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from vis_jax.ops.bilinear import linear_weights, resize
from vis_jax.ops.roi_align import Convention
from vis_jax.typing import Array, Bool, Float32, Int32

_EPSILON = 1e-4  # pixels, as in RGNNVIS
_NOTHING = -1e9


def crop_masks(
    masks: Bool[Array, "M H W"],
    boxes: Float32[Array, "R 4"],
    index: Int32[Array, "R"],
    *,
    side: int,
    convention: Convention,
) -> Float32[Array, "R _ _"]:
    """Returns the share of a mask in each of a box's `side` x `side` cells.

    RoIAlign with as many points per cell as pixels, as in torchvision and detectron2,
    which then threshold at 0.5. It is separable: the mask is multiplied by one weight
    matrix per axis.

    Args:
      masks: in pixels of the image.
      boxes: in pixels, inside the image.
      index: mask of each box.
      side: cells per axis.
      convention: box alignment, see `Convention`.

    Returns:
      Values in [0, 1].
    """
    height, width = masks.shape[1:]
    scaled = boxes - convention.shift
    rows = _weights(scaled[:, 1], scaled[:, 3], height, side, convention)
    columns = _weights(scaled[:, 0], scaled[:, 2], width, side, convention)
    chosen = masks[index].astype(jnp.float32)
    return jnp.einsum("rih,rhw,rjw->rij", rows, chosen, columns)


def inside_boxes(
    boxes: Float32[Array, "N 4"],
    cells: tuple[int, int],
    canvas: tuple[int, int],
    *,
    margin: float,
) -> Bool[Array, "N _ _"]:
    """Returns the cells of a map that lie in boxes, by their top left corners.

    YOLACT's `crop`: column j counts if x1 - margin <= j < x2 + margin in cells.

    Args:
      boxes: in pixels of the canvas.
      cells: height and width of the map, which covers the canvas.
      canvas: height and width in pixels.
      margin: cells added to boxes on each side.
    """
    scale = np.array([c / p for c, p in zip(cells, canvas, strict=True)], np.float32)
    scaled = boxes * jnp.asarray(np.tile(scale[::-1], 2))[None]
    low, high = scaled[:, :2] - margin, scaled[:, 2:] + margin

    def along(axis: int, length: int) -> Bool[Array, "N L"]:
        index = jnp.arange(length, dtype=jnp.float32)[None]
        return (index >= low[:, axis, None]) & (index < high[:, axis, None])

    return along(1, cells[0])[:, :, None] & along(0, cells[1])[:, None]


def between_corners(
    boxes: Float32[Array, "N 4"], cells: tuple[int, int], canvas: tuple[int, int]
) -> Bool[Array, "N _ _"]:
    """Returns the grid points inside boxes; the outermost lie on the canvas edges.

    As in the released code of RGNNVIS.

    Args:
      boxes: in pixels of the canvas.
      cells: rows and columns of the grid.
      canvas: height and width in pixels.
    """

    def along(axis: int, count: int, length: int) -> Bool[Array, "N L"]:
        places = jnp.linspace(0.0, length, count, dtype=jnp.float32)[None]
        return (boxes[:, axis, None] <= places) & (places <= boxes[:, axis + 2, None])

    rows, columns = along(1, cells[0], canvas[0]), along(0, cells[1], canvas[1])
    return rows[:, :, None] & columns[:, None]


def stretch_masks(
    values: Float32[Array, "R h w"],
    boxes: Float32[Array, "R 4"],
    *,
    size: tuple[int, int],
) -> Float32[Array, "R _ _"]:
    """Resizes values bilinearly to their boxes; 0 outside.

    As in mmdetection before 2.0, where the outermost cells reach the border of the box.
    Deviation: mmdetection first truncates boxes to whole pixels.

    Args:
      values: on a grid of cells over each box; signs are kept, as weights sum to 1.
      boxes: in pixels of the image.
      size: height and width of the image.
    """
    rows = _stretch_weights(boxes[:, 1], boxes[:, 3], size[0], values.shape[1])
    columns = _stretch_weights(boxes[:, 0], boxes[:, 2], size[1], values.shape[2])
    return jnp.einsum("ryi,rij,rxj->ryx", rows, values, columns)


def _stretch_weights(
    low: Float32[Array, "R"], high: Float32[Array, "R"], length: int, cells: int
) -> Float32[Array, "R H h"]:
    """Returns weights of a box's cells at every pixel of an axis; 0 outside the box."""
    extent, centres, at = _places(low, high, length, cells)
    near = linear_weights(jnp.clip(at, 0.0, cells - 1.0), cells)
    inside = (centres >= 0) & (centres < extent)
    return jnp.where(inside[..., None], near, 0.0)


def _places(
    low: Float32[Array, "R"], high: Float32[Array, "R"], length: int, cells: int
) -> tuple[Float32[Array, "R 1"], Float32[Array, "R H"], Float32[Array, "R H"]]:
    """Returns extents of boxes, and pixel centres relative to `low` and in cells."""
    extent = (high - low)[:, None]
    centres = jnp.arange(length, dtype=jnp.float32)[None] + 0.5 - low[:, None]
    return extent, centres, centres / jnp.where(extent > 0, extent, 1.0) * cells - 0.5


def paste_masks(
    probs: Float32[Array, "R h w"],
    boxes: Float32[Array, "R 4"],
    *,
    size: tuple[int, int],
) -> Float32[Array, "R _ _"]:
    """Pastes probabilities over boxes, sampled bilinearly at every pixel's centre.

    As in detectron2: nothing is rounded, and beyond the outermost cell centres values
    fall to 0, reached half a cell outside the box.

    Args:
      probs: on a grid of cells over each box.
      boxes: in pixels of the image.
      size: height and width of the image.
    """
    rows = _paste_weights(boxes[:, 1], boxes[:, 3], size[0], probs.shape[1])
    columns = _paste_weights(boxes[:, 0], boxes[:, 2], size[1], probs.shape[2])
    return jnp.einsum("ryi,rij,rxj->ryx", rows, probs, columns)


def _paste_weights(
    low: Float32[Array, "R"], high: Float32[Array, "R"], length: int, cells: int
) -> Float32[Array, "R H h"]:
    """Returns weights of a box's cells at every pixel; 0 for empty boxes."""
    extent, _, at = _places(low, high, length, cells)
    return jnp.where(extent[..., None] > 0, linear_weights(at, cells), 0.0)


def paste_on_level(
    probs: Float32[Array, "R h w"],
    boxes: Float32[Array, "R 4"],
    *,
    size: tuple[int, int],
    stride: int,
) -> Float32[Array, "R _ _"]:
    """Pastes probabilities over boxes on a feature map: `paste_masks` at its stride.

    Each cell averages samples at its four quarter points, 1/4 and 3/4 along each axis,
    as its centre alone is too coarse for masks of small boxes. Values stay soft, and
    gradients flow to `probs`. For MaskProp, which does not specify how masks get to
    feature resolution.

    Args:
      probs: on a grid of cells over each box.
      boxes: in pixels of the image.
      size: height and width of the feature map.
      stride: pixels of a cell.
    """
    # Quarter points are the pixel centres of a map at twice the resolution.
    fine = boxes / (stride / 2)

    def along(axis: int, length: int, cells: int) -> Float32[Array, "R L S"]:
        low, high = fine[:, axis], fine[:, axis + 2]
        weights = _paste_weights(low, high, 2 * length, cells)
        return weights.reshape(-1, length, 2, cells).mean(axis=2)

    rows = along(1, size[0], probs.shape[1])
    columns = along(0, size[1], probs.shape[2])
    return jnp.einsum("ryi,rij,rxj->ryx", rows, probs, columns)


def paste_in_whole_pixels(
    probs: Float32[Array, "R h w"],
    boxes: Float32[Array, "R 4"],
    *,
    size: tuple[int, int],
) -> Float32[Array, "R _ _"]:
    """Pastes probabilities in whole-pixel boxes, with a border of zeros.

    As in torchvision: a cell of zeros is added on each side, the box grows accordingly
    and its corners are truncated to whole pixels, both inclusive; the mask is resized
    to fill these pixels.

    Args:
      probs: on a grid of cells over each box.
      boxes: in pixels of the image.
      size: height and width of the image.
    """
    rows = _whole_weights(boxes[:, 1], boxes[:, 3], size[0], probs.shape[1])
    columns = _whole_weights(boxes[:, 0], boxes[:, 2], size[1], probs.shape[2])
    return jnp.einsum("ryi,rij,rxj->ryx", rows, probs, columns)


def _whole_weights(
    low: Float32[Array, "R"], high: Float32[Array, "R"], length: int, cells: int
) -> Float32[Array, "R H h"]:
    """Returns weights of a box's cells at every pixel, without the border."""
    middle, half = (low + high) * 0.5, (high - low) * 0.5 * ((cells + 2) / cells)
    first, last = (jnp.trunc(x)[:, None] for x in (middle - half, middle + half))
    count = jnp.maximum(last - first + 1.0, 1.0)
    number = jnp.arange(length, dtype=jnp.float32)[None] - first
    at = jnp.clip((number + 0.5) * ((cells + 2) / count) - 0.5, 0.0, cells + 1.0)
    near = linear_weights(at, cells + 2)[..., 1:-1]
    inside = (number >= 0) & (number < count)
    return jnp.where(inside[..., None], near, 0.0)


def _weights(
    low: Float32[Array, "R"],
    high: Float32[Array, "R"],
    length: int,
    bins: int,
    convention: Convention,
) -> Float32[Array, "R S H"]:
    """Returns weights of an axis's pixels in the mean over each bin's points."""
    extent = jnp.maximum(high - low, convention.least)[:, None, None]
    points = jnp.maximum(jnp.ceil(extent / bins), 1.0)
    number = jnp.arange(math.ceil(length / bins) + 1, dtype=jnp.float32)
    number = number.reshape(1, 1, -1)
    first = jnp.arange(bins, dtype=jnp.float32).reshape(1, -1, 1)
    at = low[:, None, None] + (first + (number + 0.5) / points) * extent / bins
    counts = (number < points) & (at >= -1.0) & (at <= length)
    at = jnp.clip(at, 0.0, length - 1.0)
    near = linear_weights(at, length)
    return jnp.where(counts[..., None], near, 0.0).sum(axis=2) / points


def mask_iou(a: Bool[Array, "N H W"], b: Bool[Array, "M H W"]) -> Float32[Array, "N M"]:
    """Returns the pairwise IoU in [0, 1]; 0 where both masks are empty."""
    # Float counts turn the intersection into one matrix product; they are exact below
    # 2^24 pixels.
    pixels_a = a.reshape(a.shape[0], -1).astype(jnp.float32)
    pixels_b = b.reshape(b.shape[0], -1).astype(jnp.float32)
    intersection = pixels_a @ pixels_b.T
    union = pixels_a.sum(1)[:, None] + pixels_b.sum(1)[None] - intersection
    return intersection / jnp.maximum(union, 1.0)


def mask_pool(
    features: Float32[Array, "h w C"],
    logits: Float32[Array, "N H W"],
    valid: Bool[Array, "N"],
    *,
    background: float,
) -> Float32[Array, "N C"]:
    """Averages the features over each mask, weighted by a softmax over the masks.

    Every pixel is shared among the masks and a background of constant logit. Source:
    the released code of Johnander et al., "Video Instance Segmentation with Recurrent
    Graph Neural Networks", GCPR 2021.

    Args:
      features: a map; logits are resized to it, without antialiasing.
      logits: logits of the masks.
      valid: False marks masks without pixels of their own.
      background: logit of the background.

    Returns:
      Features; 0 for invalid masks, and nearly 0 for masks without a pixel.
    """
    height, width = features.shape[:2]
    planes = resize(logits[..., None], (height, width))[..., 0]
    planes = jnp.where(valid[:, None, None], planes, _NOTHING)
    planes = jnp.concatenate([jnp.full_like(planes[:1], background), planes])
    shares = jax.nn.softmax(planes, axis=0)[1:]
    pooled = jnp.einsum(
        "nhw,hwc->nc", shares, features, precision=jax.lax.Precision.HIGHEST
    )
    return pooled / (shares.sum(axis=(1, 2))[:, None] + _EPSILON)
