"""Mask logits of a system as masks at the original size, and as run lengths."""

import functools
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vis_jax.structures import Predictions
from vis_jax.typing import Array, Float, Float32, UInt8

# Masks of this many pixels leave the device at once: 64 MiB as bytes.
_PIXELS_AT_ONCE = 1 << 26


class Sizes(NamedTuple):
    """Height and width in pixels of a frame on its way through a system."""

    canvas: tuple[int, int]
    content: tuple[int, int]  # at the top left of the canvas
    original: tuple[int, int]


class FrameMasks(NamedTuple):
    """Masks of some of the tracks in one frame."""

    rows: np.ndarray  # int [N], which predictions they are of
    masks: np.ndarray  # uint8 [N, W, H]


class Matrices(NamedTuple):
    """What takes logits to another size, one axis each; see `resize_matrix`."""

    rows: np.ndarray
    columns: np.ndarray


def matrices(size: tuple[int, int], sizes: Sizes) -> Matrices:
    """From logits of a height and width to the original size."""
    axes = zip(size, *sizes, strict=True)
    return Matrices(*(resize_matrix(*axis) for axis in axes))


def run_lengths(masks: np.ndarray) -> list[dict]:
    """Run lengths {"size": [H, W], "counts": bytes} of masks uint8 [N, W, H]."""
    from pycocotools import mask as coco_mask

    # The device gives [W, H], which is [H, W] in the order of run lengths.
    return [coco_mask.encode(mask.T) for mask in masks]


def frame_masks(
    found: Predictions, sizes: Sizes, *, keep: np.ndarray, count: int, at_once: int
) -> Iterator[FrameMasks]:
    """Masks of the first frames of a clip at the original size, frame by frame.

    Args:
      found: what a system says.
      sizes: of the frames.
      keep: int [N], the predictions wanted; those known to be absent are left out.
      count: frames wanted.
      at_once: the most frames that leave the device together.
    """
    if found.mask_boxes is None:
        whole = masks_of([found.mask_logits], [sizes], count=count, at_once=at_once)
        for masks_of_frame in whole:
            yield FrameMasks(keep, masks_of_frame[keep])
        return
    scale = np.divide(sizes.original, sizes.content, dtype=np.float32)
    boxes = np.asarray(found.mask_boxes) * np.tile(scale[::-1], 2)
    values = np.asarray(found.mask_logits)
    there = (boxes[..., 2:] > boxes[..., :2]).all(axis=-1)
    for frame in range(count):
        rows = keep[there[keep, frame]]
        masks = stretched(values[rows, frame], boxes[rows, frame], sizes.original)
        yield FrameMasks(rows, masks)


def stretched(
    values: np.ndarray, boxes: np.ndarray, size: tuple[int, int]
) -> np.ndarray:
    """Masks uint8 [N, W, H] of values [N, h, w] that cover boxes.

    As `ops.masks.stretch_masks`, on the host and only inside the boxes: on a CPU 5 to
    14 times as fast as whole frames.

    Args:
      values: positive inside.
      boxes: float32 [N, 4] in pixels of the frame.
      size: height and width of the frame in pixels.
    """
    masks = np.zeros((len(boxes), *size[::-1]), np.uint8)
    for mask, cells, box in zip(masks, values, boxes.tolist(), strict=True):
        rows = _inside(box[1], box[3], size[0], cells.shape[0])
        columns = _inside(box[0], box[2], size[1], cells.shape[1])
        enlarged = columns.weights @ cells.T @ rows.weights.T
        mask[columns.pixels, rows.pixels] = enlarged > 0
    return masks


class _Inside(NamedTuple):
    """Pixels of an axis that lie in a box, and what they read."""

    pixels: slice
    weights: np.ndarray  # float32 [pixels, cells]


def _inside(low: float, high: float, length: int, cells: int) -> _Inside:
    """Bilinear weights of the cells of a box at the centres of its pixels."""
    first = min(max(math.ceil(low - 0.5), 0), length)
    last = max(min(math.ceil(high - 0.5), length), first)
    at = (np.arange(first, last) + 0.5 - low) / (high - low) * cells - 0.5
    at = np.clip(at, 0, cells - 1)
    weights = np.maximum(1 - np.abs(at[:, None] - np.arange(cells)), 0)
    return _Inside(slice(first, last), weights.astype(np.float32))


def masks_of(
    views: Sequence[jax.Array], sizes: Sequence[Sizes], *, count: int, at_once: int
) -> Iterator[np.ndarray]:
    """Masks uint8 [N, W, H] of the first frames of a clip, frame by frame.

    Args:
      views: float32 [N, T, h, w], logits of the same objects, one or several results;
        of several the mean of the probabilities counts.
      sizes: of the frames of every view, with the same original.
      count: frames wanted.
      at_once: the most frames that leave the device together.
    """
    to_original = [
        matrices((logits.shape[2], logits.shape[3]), size)
        for logits, size in zip(views, sizes, strict=True)
    ]
    objects, frames = views[0].shape[:2]
    height, width = sizes[0].original
    chunk = _PIXELS_AT_ONCE // (max(objects, 1) * height * width)
    chunk = max(1, min(frames, at_once, chunk))
    for first in range(0, count, chunk):
        # Every chunk has the same size, so that one program serves all.
        begin = min(first, frames - chunk)
        parts = [jax.lax.dynamic_slice_in_dim(x, begin, chunk, axis=1) for x in views]
        if len(views) == 1:
            masks = upsample(parts[0], *to_original[0])
        else:
            masks = blend(parts, to_original)
        last = min(chunk, count - begin)
        yield from np.moveaxis(np.asarray(masks), 1, 0)[first - begin : last]


@jax.jit
def upsample(
    logits: Float[Array, "N t h w"],
    rows: Float32[Array | np.ndarray, "H h"],
    columns: Float32[Array | np.ndarray, "W w"],
) -> UInt8[Array, "N t W H"]:
    """Masks of logits; see `resize_matrix`."""
    return (_enlarge(logits, rows, columns) > 0).astype(jnp.uint8)


@jax.jit
def blend(
    views: list[Float[Array, "N t _ _"]], to_original: list[Matrices]
) -> UInt8[Array, "N t W H"]:
    """As `upsample`, of several views: where the mean probability is above a half."""
    probs = [
        jax.nn.sigmoid(_enlarge(logits, *axes))
        for logits, axes in zip(views, to_original, strict=True)
    ]
    return (sum(probs[1:], probs[0]) / len(probs) > 0.5).astype(jnp.uint8)


def _enlarge(
    logits: Float[Array, "N t h w"],
    rows: Float32[Array | np.ndarray, "H h"],
    columns: Float32[Array | np.ndarray, "W w"],
) -> Float[Array, "N t W H"]:
    precise = functools.partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)
    tall = precise("nthw,Hh->ntHw", logits, rows)
    return precise("ntHw,Ww->ntWH", tall, columns)


def resize_matrix(length: int, canvas: int, content: int, original: int) -> np.ndarray:
    """One axis of: resize logits to the canvas, crop to the content, resize back.

    Both resizes are bilinear with half-pixel centres and clamped edges, and so linear:
    their product is one small matrix, float32 [original, length].
    """
    up = _bilinear(length, canvas)[:content]
    return (_bilinear(int(content), original) @ up).astype(np.float32)


def _bilinear(source: int, target: int) -> np.ndarray:
    """Weights [target, source] of a bilinear resize without antialiasing."""
    at = (np.arange(target) + 0.5) * source / target - 0.5
    at = np.clip(at, 0, source - 1)
    distance = np.abs(at[:, None] - np.arange(source))
    return np.maximum(1 - distance, 0)
