"""The frames of a video as clips of one shape, a few frames in memory at a time."""

import itertools
from collections import deque
from collections.abc import Iterable, Iterator

import numpy as np

from data_pipeline.read_video import pad_frames
from vis_jax.structures import Clip

_CANVAS_MULTIPLE = 32  # the coarsest stride of a backbone


def bucket(length: int, buckets: tuple[int, ...]) -> int:
    """Frames to pad a video to: the least bucket that holds it.

    Beyond the largest bucket, the next multiple of it.
    """
    fitting = [size for size in sorted(buckets) if size >= length]
    largest = max(buckets)
    return fitting[0] if fitting else -(-length // largest) * largest


def clip_starts(count: int, length: int, stride: int) -> list[int]:
    """First frames of the clips of a video; the last one is shifted to end with it.

    Args:
      count: frames of the video.
      length: frames of a clip.
      stride: from one clip to the next.
    """
    last = max(count - length, 0)
    return [*range(0, last, stride), last]


def clips_of(
    frames: Iterable[np.ndarray], count: int, *, length: int, stride: int
) -> Iterator[tuple[Clip, int]]:
    """Clips of a video, and how many of its first frames each one is the last to have.

    Args:
      frames: uint8 [h, w, 3], all of one size and as many as `count`.
      count: frames of the video; a shorter one than a clip is padded at its end.
      length: frames of a clip.
      stride: from one clip to the next.
    """
    frames = iter(frames)
    kept: deque[np.ndarray] = deque(maxlen=length)
    starts = clip_starts(count, length, stride)
    read = 0
    for start, after in zip(starts, [*starts[1:], count], strict=True):
        end = min(start + length, count)
        kept.extend(itertools.islice(frames, end - read))
        read = end
        yield _clip(kept, length, start), after - start


def _clip(frames: Iterable[np.ndarray], length: int, start: int) -> Clip:
    """Frames on a canvas, padded in time."""
    images = np.stack(list(frames))
    count, size = len(images), images.shape[1:3]
    images = pad_frames(images, multiple=_CANVAS_MULTIPLE)
    images = np.pad(images, ((0, length - count), (0, 0), (0, 0), (0, 0)))
    return Clip(
        images,
        np.arange(length) < count,
        np.asarray(size, np.int32),
        np.asarray(start, np.int32),
    )
