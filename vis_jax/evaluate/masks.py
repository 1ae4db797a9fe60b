"""Converts mask logits to masks at the original size, and masks to RLE."""

import functools
import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vis_jax.ops.bilinear import fixed_weights
from vis_jax.structures import Predictions, Render
from vis_jax.typing import Array, Bool, Float, Float32, UInt8

# Mask pixels per transfer from the device: 64 MiB.
_PIXELS_AT_ONCE = 1 << 26


class Sizes(NamedTuple):
    """Height and width of a frame before and after preprocessing, in pixels."""

    canvas: tuple[int, int]
    content: tuple[int, int]  # at the top left of the canvas
    original: tuple[int, int]


class FrameMasks(NamedTuple):
    """Masks of one frame."""

    objects: np.ndarray  # int [N], column of each mask in the predictions
    masks: np.ndarray  # uint8 [N, W, H]


class Matrices(NamedTuple):
    """Matrices that resize logits, one for each axis; see `resize_matrix`."""

    rows: np.ndarray
    columns: np.ndarray


def matrices(size: tuple[int, int], sizes: Sizes, *, aligned: bool = False) -> Matrices:
    """Returns the matrices that resize logits to the original size.

    Args:
      size: height and width of the logits.
      sizes: sizes of the frames.
      aligned: see `Render`.
    """
    axes = zip(size, *sizes, strict=True)
    return Matrices(*(resize_matrix(*axis, aligned=aligned) for axis in axes))


def run_lengths(masks: np.ndarray) -> list[dict]:
    """Encodes masks uint8 [N, W, H] as RLE {"size": [H, W], "counts": bytes}."""
    from pycocotools import mask as coco_mask

    # Masks come as [W, H], which is [H, W] in the column-major order of RLE.
    return [coco_mask.encode(mask.T) for mask in masks]


def frame_masks(
    found: Predictions, sizes: Sizes, render: Render, *, rows: range, at_once: int
) -> Iterator[FrameMasks]:
    """Yields the masks of consecutive frames of a clip at the original size.

    Masks without a valid track are left out. The device starts on the first frames at
    the call, not at the first `next`.

    Args:
      found: predictions of a system.
      sizes: sizes of the frames.
      render: rule for overlapping masks.
      rows: consecutive rows of `found.slots`.
      at_once: maximum number of frames per transfer from the device.
    """
    if found.mask_boxes is not None:
        masks = _inside_boxes(found, sizes, render, rows)
    else:
        wanted = _wanted(found, rows)
        columns = _padded(wanted, found.slots.shape[1])
        apart = None
        if render.overlap == "argmax":
            real = np.arange(len(columns)) < len(wanted)
            apart = _shown(found, jnp)[:, columns] & real[None]
        logits = jnp.asarray(found.mask_logits)[:, columns]
        whole = masks_of(
            [logits],
            [sizes],
            rows=rows,
            at_once=at_once,
            apart=apart,
            aligned=render.aligned,
        )
        masks = _of_tracks(found, whole, rows, wanted)
    return map(_ranked, masks, itertools.repeat(render))


def _shown(found: Predictions, xnp: Any) -> Any:
    """Returns bool [F, D]: the mask belongs to a valid track."""
    slots, valid = xnp.asarray(found.slots), xnp.asarray(found.valid)
    return (slots >= 0) & valid[slots]


def _wanted(found: Predictions, rows: range) -> np.ndarray:
    """Returns the columns of the D masks to upsample, int [N]."""
    if jax.default_backend() != "cpu":
        # Take all: reading the slots would wait for the model, and the device would
        # run the next clip before upsampling these masks.
        return np.arange(found.slots.shape[1])
    return np.flatnonzero(_shown(found, np)[rows.start : rows.stop].any(axis=0))


def _padded(wanted: np.ndarray, most: int) -> np.ndarray:
    """Pads to a power of two, at most `most`, so that few programs are compiled."""
    count = min(1 << max(len(wanted) - 1, 0).bit_length(), most)
    return np.append(wanted, np.zeros(count - len(wanted), int))


def _of_tracks(
    found: Predictions,
    whole: Iterator[np.ndarray],
    rows: range,
    wanted: np.ndarray,
) -> Iterator[FrameMasks]:
    shown = _shown(found, np)[:, wanted]
    for row, masks in zip(rows, whole, strict=True):
        places = np.flatnonzero(shown[row])
        yield FrameMasks(wanted[places], masks[places])


def _inside_boxes(
    found: Predictions, sizes: Sizes, render: Render, rows: range
) -> Iterator[FrameMasks]:
    draw = largest if render.overlap == "argmax" else stretched
    scale = np.divide(sizes.original, sizes.content, dtype=np.float32)
    boxes = np.asarray(found.mask_boxes) * np.tile(scale[::-1], 2)
    values = np.asarray(found.mask_logits)
    shown = _shown(found, np) & (boxes[..., 2:] > boxes[..., :2]).all(axis=-1)
    for row in rows:
        objects = np.flatnonzero(shown[row])
        masks = draw(values[row, objects], boxes[row, objects], sizes.original)
        yield FrameMasks(objects, masks)


def _ranked(found: FrameMasks, render: Render) -> FrameMasks:
    """Removes pixels that are hidden by earlier masks; see `Render`."""
    if render.overlap != "rank":
        return found
    free = np.ones(found.masks.shape[1:], np.uint8)
    kept = []
    for index, mask in enumerate(found.masks):
        visible = mask & free
        if visible.sum() > 0 and visible.sum() >= render.least_visible * mask.sum():
            free &= ~visible & 1
            kept.append((index, visible))
    if not kept:
        return FrameMasks(found.objects[:0], found.masks[:0])
    indices, masks = zip(*kept, strict=True)
    return FrameMasks(found.objects[list(indices)], np.stack(masks))


def stretched(
    values: np.ndarray, boxes: np.ndarray, size: tuple[int, int]
) -> np.ndarray:
    """Resizes logits [N, h, w] to their boxes and returns masks uint8 [N, W, H].

    Like `ops.masks.stretch_masks`, but on the host and only inside the boxes: 5 to 14
    times as fast on a CPU as whole frames.

    Args:
      values: logits, positive inside.
      boxes: float32 [N, 4] in pixels of the frame.
      size: height and width of the frame in pixels.
    """
    masks = np.zeros((len(boxes), *size[::-1]), np.uint8)
    for mask, (place, enlarged) in zip(
        masks, _enlarged(values, boxes, size), strict=True
    ):
        mask[place] = enlarged > 0
    return masks


def largest(values: np.ndarray, boxes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Like `stretched`, but a pixel belongs only to the mask with the largest logit."""
    best = np.zeros(size[::-1], np.float32)
    owner = np.full(size[::-1], -1)
    for index, (place, enlarged) in enumerate(_enlarged(values, boxes, size)):
        wins = enlarged > best[place]
        best[place] = np.where(wins, enlarged, best[place])
        owner[place] = np.where(wins, index, owner[place])
    return (owner[None] == np.arange(len(boxes))[:, None, None]).astype(np.uint8)


def _enlarged(
    values: np.ndarray, boxes: np.ndarray, size: tuple[int, int]
) -> Iterator[tuple[tuple[slice, slice], np.ndarray]]:
    """Yields the columns and rows that each box covers, and its logits there [W, H]."""
    for cells, box in zip(values, boxes.tolist(), strict=True):
        rows = _inside(box[1], box[3], size[0], cells.shape[0])
        columns = _inside(box[0], box[2], size[1], cells.shape[1])
        place = (columns.pixels, rows.pixels)
        yield place, columns.weights @ cells.T @ rows.weights.T


class _Inside(NamedTuple):
    """Pixels of one axis inside a box, and the interpolation weights they read with."""

    pixels: slice
    weights: np.ndarray  # float32 [pixels, cells]


def _inside(low: float, high: float, length: int, cells: int) -> _Inside:
    """Returns bilinear weights of a box's cells at the centres of its pixels."""
    first = min(max(math.ceil(low - 0.5), 0), length)
    last = max(min(math.ceil(high - 0.5), length), first)
    at = (np.arange(first, last) + 0.5 - low) / (high - low) * cells - 0.5
    weights = fixed_weights(np.clip(at, 0, cells - 1), cells)
    return _Inside(slice(first, last), weights.astype(np.float32))


def masks_of(
    views: Sequence[jax.Array],
    sizes: Sequence[Sizes],
    *,
    rows: range,
    at_once: int,
    apart: jax.Array | None = None,
    aligned: bool = False,
) -> Iterator[np.ndarray]:
    """Yields the masks uint8 [N, W, H] of consecutive frames of a clip.

    The device starts on the first frames at the call and then stays one chunk ahead.

    Args:
      views: float32 [T, N, h, w], logits of the same objects at each resolution; the
        probabilities of several are averaged.
      sizes: sizes of the frames of every view, with the same original size.
      rows: consecutive frames to return.
      at_once: maximum number of frames per transfer from the device.
      apart: bool [T, N], masks that compete for pixels: a pixel belongs only to the one
        with the largest logit. None: masks may overlap. Only with one view.
      aligned: see `Render`.
    """
    to_original = [
        matrices((logits.shape[2], logits.shape[3]), size, aligned=aligned)
        for logits, size in zip(views, sizes, strict=True)
    ]
    frames, objects = views[0].shape[:2]
    pixels = max(objects, 1) * math.prod(sizes[0].original)
    chunk = max(1, min(frames, at_once, _PIXELS_AT_ONCE // pixels))

    def enlarge(first: int) -> jax.Array:
        # All chunks have one size, so that one program serves them all.
        begin = min(first, frames - chunk)
        parts = [jax.lax.dynamic_slice_in_dim(x, begin, chunk) for x in views]
        if apart is not None:
            rivals = jax.lax.dynamic_slice_in_dim(apart, begin, chunk)
            return divide(parts[0], rivals, *to_original[0])
        if len(views) == 1:
            return upsample(parts[0], *to_original[0])
        return blend(parts, to_original)

    def leave(firsts: list[int], masks: jax.Array | None) -> Iterator[np.ndarray]:
        for first, after in zip(firsts, [*firsts[1:], None], strict=True):
            ready, masks = masks, None if after is None else enlarge(after)
            begin = min(first, frames - chunk)
            yield from np.asarray(ready)[first - begin : min(chunk, rows.stop - begin)]

    firsts = list(range(rows.start, rows.stop, chunk))
    return leave(firsts, enlarge(firsts[0]) if firsts else None)


@jax.jit
def upsample(
    logits: Float[Array, "t N h w"],
    rows: Float32[Array | np.ndarray, "H h"],
    columns: Float32[Array | np.ndarray, "W w"],
) -> UInt8[Array, "t N W H"]:
    """Returns the masks of logits at the original size; see `resize_matrix`."""
    return (_enlarge(logits, rows, columns) > 0).astype(jnp.uint8)


@jax.jit
def divide(
    logits: Float[Array, "t N h w"],
    shown: Bool[Array | np.ndarray, "t N"],
    rows: Float32[Array | np.ndarray, "H h"],
    columns: Float32[Array | np.ndarray, "W w"],
) -> UInt8[Array, "t N W H"]:
    """Like `upsample`, but gives each pixel to the largest logit among shown masks."""
    large = _enlarge(logits, rows, columns)
    large = jnp.where(shown[..., None, None], large, -jnp.inf)
    numbers = jnp.arange(large.shape[1], dtype=jnp.int32)[None, :, None, None]
    own = large.argmax(axis=1)[:, None] == numbers
    return ((large > 0) & own).astype(jnp.uint8)


@jax.jit
def blend(
    views: list[Float[Array, "t N _ _"]], to_original: list[Matrices]
) -> UInt8[Array, "t N W H"]:
    """Like `upsample` for several views: the mean probability is above 0.5."""
    probs = [
        jax.nn.sigmoid(_enlarge(logits, *axes))
        for logits, axes in zip(views, to_original, strict=True)
    ]
    return (sum(probs[1:], probs[0]) / len(probs) > 0.5).astype(jnp.uint8)


def _enlarge(
    logits: Float[Array, "t N h w"],
    rows: Float32[Array | np.ndarray, "H h"],
    columns: Float32[Array | np.ndarray, "W w"],
) -> Float[Array, "t N W H"]:
    precise = functools.partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)
    tall = precise("tnhw,Hh->tnHw", logits, rows)
    return precise("tnHw,Ww->tnWH", tall, columns)


def resize_matrix(
    length: int, canvas: int, content: int, original: int, *, aligned: bool = False
) -> np.ndarray:
    """Returns the matrix that resizes one axis of logits to the original size.

    It resizes to the canvas, crops to the content and resizes to the original. Both
    resizes are bilinear with half-pixel centres and clamped edges, hence linear: their
    product is one small matrix, float32 [original, length].

    Args:
      length: length of the logits.
      canvas, content, original: see `Sizes`.
      aligned: see `Render`; the canvas is then a multiple of the length.
    """
    up = (_aligned if aligned else _bilinear)(length, canvas)[:content]
    return (_bilinear(int(content), original) @ up).astype(np.float32)


def _bilinear(source: int, target: int) -> np.ndarray:
    """Returns weights [target, source] of a bilinear resize without antialiasing."""
    return _read_at((np.arange(target) + 0.5) * source / target - 0.5, source)


def _aligned(source: int, target: int) -> np.ndarray:
    """Returns weights [target, source] of `ops.bilinear.aligned_upsample`."""
    factor = target // source
    return _read_at((np.arange(target) - factor // 2) / factor, source)


def _read_at(at: np.ndarray, source: int) -> np.ndarray:
    """Returns weights [P, source] of linear interpolation at positions [P], clamped."""
    return fixed_weights(np.clip(at, 0, source - 1), source)
