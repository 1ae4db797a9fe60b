"""From the frames of one video to scored tracks with masks at the original size.

The system runs once for each canvas and number of frames; the result leaves the device
as masks, a few frames at a time, and becomes run lengths at once. So memory holds one
video at model size, and no video of masks at the original size.
"""

import functools
from collections.abc import Callable, Iterable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from data_pipeline.read_video import pad_frames, resize_frames
from vis_jax.structures import Clip
from vis_jax.systems.system import System

# Masks of this many pixels leave the device at once: 64 MiB as bytes.
_PIXELS_AT_ONCE = 1 << 26
_CANVAS_MULTIPLE = 32  # the coarsest stride of a backbone


class VideoPrediction(NamedTuple):
    """Tracks of one video, best score first; N tracks, T frames."""

    labels: np.ndarray  # int32 [N], 0 .. K - 1
    scores: np.ndarray  # float32 [N]
    track_ids: np.ndarray  # int32 [N], 1, 2, ..
    # [N][T] run lengths {"size": [H, W], "counts": bytes} at the original size.
    segmentations: list[list[dict]]


Infer = Callable[..., VideoPrediction]


def make_infer(system: System, variables: dict, test: ConfigDict) -> Infer:
    """A function `infer(frames, height=, width=, num_frames=)` for one video.

    `frames` are its frames in order, uint8 [H, W, 3]; only their resized copies are
    kept, so an iterator that decodes one at a time bounds the memory.

    Args:
      system: what to run.
      variables: its parameters.
      test: `short_side` and `long_side` in pixels; `frame_buckets`, the lengths that
        videos are padded to so that few programs are compiled.
    """
    step = jax.jit(system.step)

    def infer(
        frames: Iterable[np.ndarray], *, height: int, width: int, num_frames: int
    ) -> VideoPrediction:
        clip = _clip_of(frames, num_frames, test)
        _, found = step(variables, system.start(), clip)
        keep = np.flatnonzero(np.asarray(found.valid))
        return VideoPrediction(
            np.asarray(found.labels)[keep],
            np.asarray(found.scores)[keep],
            np.asarray(found.track_ids)[keep],
            _run_lengths(
                found.mask_logits,
                keep,
                count=num_frames,
                size=clip.size,
                canvas=clip.images.shape[1:3],
                original=(height, width),
            ),
        )

    return infer


def bucket(length: int, buckets: tuple[int, ...]) -> int:
    """Frames to pad a video to: the least bucket that holds it.

    Beyond the largest bucket, the next multiple of it.
    """
    fitting = [size for size in sorted(buckets) if size >= length]
    largest = max(buckets)
    return fitting[0] if fitting else -(-length // largest) * largest


def _clip_of(frames: Iterable[np.ndarray], count: int, test: ConfigDict) -> Clip:
    """Frames resized, on a canvas, padded in time to a bucket."""
    resized = [
        resize_frames(frame[None], test.short_side, test.long_side)[0]
        for frame in frames
    ]
    if len(resized) != count or not count:
        expected = count or "some"
        raise ValueError(f"video: expected {expected} frames, got {len(resized)}")
    size = resized[0].shape[:2]
    images = pad_frames(np.stack(resized), multiple=_CANVAS_MULTIPLE)
    padding = bucket(count, test.frame_buckets) - count
    images = np.pad(images, ((0, padding), (0, 0), (0, 0), (0, 0)))
    valid = np.arange(len(images)) < count
    return Clip(images, valid, np.asarray(size, np.int32))


def _run_lengths(logits, keep, *, count, size, canvas, original):
    """Run lengths [N][T] of the masks where the upsampled logits are positive."""
    from pycocotools import mask as coco_mask

    rows = resize_matrix(logits.shape[2], canvas[0], size[0], original[0])
    columns = resize_matrix(logits.shape[3], canvas[1], size[1], original[1])
    pixels = max(len(keep), 1) * original[0] * original[1]
    chunk = max(1, min(count, _PIXELS_AT_ONCE // pixels))
    out: list[list[dict]] = [[] for _ in keep]
    for start in range(0, count, chunk):
        # Every chunk has the same size, so that one program serves all.
        begin = max(0, min(start, count - chunk))
        some = jax.lax.dynamic_slice_in_dim(logits, begin, chunk, axis=1)
        masks = np.asarray(upsample(some, rows, columns))
        for track, index in enumerate(keep):
            for frame in range(start - begin, min(chunk, count - begin)):
                # The device gives [W, H], which is [H, W] in the order of run lengths.
                out[track].append(coco_mask.encode(masks[index, frame].T))
    return out


@jax.jit
def upsample(logits, rows, columns):
    """Masks uint8 [N, t, W, H] of logits [N, t, h, w]; see `resize_matrix`."""
    precise = functools.partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)
    tall = precise("nthw,Hh->ntHw", logits, rows)
    return (precise("ntHw,Ww->ntWH", tall, columns) > 0).astype(jnp.uint8)


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
