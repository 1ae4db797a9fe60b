"""The frames of a video as clips of one shape, a few frames in memory at a time."""

import itertools
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import NamedTuple

import numpy as np

from data_pipeline.read_video import fit_frame, pad_frames
from vis_jax.evaluate.masks import Sizes
from vis_jax.results.clock import Clock
from vis_jax.structures import Clip, Window
from vis_jax.systems.system import TestSettings

_CANVAS_MULTIPLE = 32  # the coarsest stride of a backbone


class Piece(NamedTuple):
    """A clip, and what of its predictions is final; see `Window`."""

    clip: Clip
    sizes: Sizes
    first: int  # the frame of the video that row 0 of the masks is
    rows: int  # how many of the first rows are final
    at_once: int  # the most frames whose masks leave the device together


def bucket(length: int, buckets: tuple[int, ...]) -> int:
    """Frames to pad a video to: the least bucket that holds it.

    Beyond the largest bucket, the next multiple of it.
    """
    fitting = [size for size in sorted(buckets) if size >= length]
    largest = max(buckets)
    return fitting[0] if fitting else -(-length // largest) * largest


def read_pieces(
    frames: Iterable[np.ndarray], window: Window, test: TestSettings, clock: Clock
) -> Iterator[Piece]:
    """The clips of a video, whose frames are resized as they are read.

    Args:
      frames: uint8 [H, W, 3], all of one size.
      window: of the system.
      test: the sizes that frames are resized to.
      clock: measures how long reading and resizing take.
    """
    frames = iter(frames)
    with clock("decode"):
        first = next(frames, None)
    if first is None:
        return
    images = _fitted(itertools.chain([first], frames), test, clock)
    yield from pieces_of(images, window, first.shape[:2])


def _fitted(
    frames: Iterator[np.ndarray], test: TestSettings, clock: Clock
) -> Iterator[np.ndarray]:
    """Frames at the size that a system sees them."""
    while True:
        with clock("decode"):
            frame = next(frames, None)
            if frame is None:
                return
            image = fit_frame(frame, test.short_side, test.long_side, test.size)
        yield image


def pieces_of(
    images: Iterable[np.ndarray], window: Window, original: tuple[int, int]
) -> Iterator[Piece]:
    """The clips of a video; without frames there are none.

    How many frames there are need not be known: a clip follows once it is known whether
    and, if clips overlap, where the next one begins.

    Args:
      images: uint8 [h, w, 3], as a system sees them.
      window: of the system.
      original: height and width of the frames in pixels.

    Raises:
      ValueError: the window has more frames between clips than in a clip.
    """
    for kept, start, length, more in _groups(iter(images), window):
        clip = _clip(kept, length, start, more is None)
        height, width = clip.images.shape[1:3]
        sizes = Sizes((height, width), kept[0].shape[:2], original)
        rows = len(kept) + window.delay if more is None else more
        at_once = window.stride or length
        yield Piece(clip, sizes, start - window.delay, rows, at_once)


def _groups(
    frames: Iterator[np.ndarray], window: Window
) -> Iterator[tuple[list[np.ndarray], int, int, int | None]]:
    """Yields frames, start and length of each clip, and how many frames lie between its
    start and that of the next; None for the last one."""
    if window.length is None or window.stride is None:
        kept = list(frames)
        if kept:
            yield kept, 0, bucket(len(kept), window.buckets), None
        return
    length, stride, start = window.length, window.stride, 0
    if not 1 <= stride <= length:
        raise ValueError(
            f"window.stride: expected 1 .. {length}, the frames of a clip, got {stride}"
        )
    kept = list(islice(frames, length))
    while kept and stride == length:
        following = list(islice(frames, 1))  # is there another clip?
        yield kept, start, length, length if following else None
        start += length
        kept = [*following, *islice(frames, length - 1)] if following else []
    while kept:
        more = list(islice(frames, stride))
        yield kept, start, length, len(more) or None
        start += len(more)
        kept = [*kept, *more][-length:] if more else []


def _clip(kept: list[np.ndarray], length: int, start: int, last: bool) -> Clip:
    """Frames on a canvas, padded in time."""
    images = np.stack(kept)
    count, size = len(images), images.shape[1:3]
    images = pad_frames(images, multiple=_CANVAS_MULTIPLE)
    images = np.pad(images, ((0, length - count), (0, 0), (0, 0), (0, 0)))
    return Clip(
        images,
        np.arange(length) < count,
        np.asarray(size, np.int32),
        np.asarray(start, np.int32),
        np.asarray(last),
    )
