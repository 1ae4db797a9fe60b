"""Splits a video into clips of one shape, with few frames in memory at a time."""

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from absl import logging

from data_pipeline.clip_sampling import resized_size
from data_pipeline.read_video import fit_frame
from vis_jax.evaluate.masks import Sizes
from vis_jax.results.clock import Clock
from vis_jax.structures import Clip, Window


@runtime_checkable
class Sizing(Protocol):
    """The sizes that frames are resized to; see `systems.system.TestSettings`."""

    @property
    def short_side(self) -> int:
        """Pixels of the short side after resizing .."""
        ...

    @property
    def long_side(self) -> int:
        """.. unless the long side would exceed this many pixels."""
        ...

    @property
    def size(self) -> tuple[int, ...]:
        """Height and width to stretch frames to instead; () = keep the aspect ratio."""
        ...


class FramePlacement(NamedTuple):
    """Height and width of a resized frame and of its canvas, in pixels."""

    content: tuple[int, int]
    canvas: tuple[int, int]  # the content is at its top left


class Piece(NamedTuple):
    """Clip of a video, and the rows of its predictions that are final; see `Window`."""

    clip: Clip
    sizes: Sizes
    first: int  # video frame of row 0 of the masks
    rows: int  # the first rows, which are final
    at_once: int  # maximum number of frames per mask transfer to the host


def bucket(length: int, buckets: tuple[int, ...]) -> int:
    """Returns the number of frames to pad a video to: the smallest bucket that fits.

    For longer videos than the largest bucket, the next multiple of that bucket.
    """
    fitting = [size for size in sorted(buckets) if size >= length]
    largest = max(buckets)
    return fitting[0] if fitting else -(-length // largest) * largest


def place_frames(
    original: tuple[int, int],
    sizing: Sizing,
    canvases: Sequence[tuple[int, int]] = (),
    *,
    multiple: int,
) -> FramePlacement:
    """Chooses the canvas of a video, and the size of its frames on it.

    Args:
      original: height and width of the frames in pixels.
      sizing: the sizes that frames are resized to.
      canvases: height and width of the only canvases available: the smallest that
        holds a frame is used; if none does, frames are shrunk to the canvas on which
        they stay largest. () = any canvas.
      multiple: divisor of the sides of any other canvas, in pixels; see `Window`.
    """
    content = (sizing.size[0], sizing.size[1]) if sizing.size else None
    if content is None:
        sides = (sizing.short_side, sizing.long_side)
        content = resized_size(*original, sides[0], long_side=sides[1], canvas=None)
    height, width = content
    if not canvases:
        return FramePlacement(content, _canvas(content, multiple))
    holding = [one for one in canvases if one[0] >= height and one[1] >= width]
    if holding:
        return FramePlacement(content, min(holding, key=math.prod))

    def scale(canvas: tuple[int, int]) -> float:
        return min(canvas[0] / height, canvas[1] / width)

    canvas = max(canvases, key=scale)
    smaller = resized_size(
        height, width, min(content), long_side=max(content), canvas=canvas
    )
    return FramePlacement(smaller, canvas)


def _canvas(size: tuple[int, int], multiple: int) -> tuple[int, int]:
    """Returns height and width of the least canvas that holds frames of a size."""
    return size[0] + -size[0] % multiple, size[1] + -size[1] % multiple


def blank_clip(window: Window, canvas: tuple[int, int], num_frames: int) -> Clip:
    """Returns a black clip with the shapes of a video's clips; takes no memory.

    Args:
      window: window of the system.
      canvas: height and width in pixels.
      num_frames: length of the video; only used if the whole video is one clip.
    """
    length = window.length or bucket(num_frames, window.buckets)
    return Clip(
        np.broadcast_to(np.uint8(0), (length, *canvas, 3)),
        np.broadcast_to(np.True_, length),
        np.asarray(canvas, np.int32),
    )


def read_pieces(
    frames: Iterable[np.ndarray],
    window: Window,
    sizing: Sizing,
    clock: Clock,
    canvases: Sequence[tuple[int, int]] = (),
) -> Iterator[Piece]:
    """Yields the clips of a video, resizing frames as they are read.

    Args:
      frames: uint8 [H, W, 3], all of one size.
      window: window of the system.
      sizing: the sizes that frames are resized to.
      clock: times reading and resizing.
      canvases: see `place_frames`.
    """
    frames = iter(frames)
    with clock("reading"):
        first = next(frames, None)
    if first is None:
        return
    original = first.shape[:2]
    multiple = window.multiple
    place = place_frames(original, sizing, canvases, multiple=multiple)
    free = place_frames(original, sizing, multiple=multiple)
    if place.content != free.content:
        logging.warning(
            "frames of %d x %d (height x width) are shrunk to %d x %d, as no larger"
            " program was exported",
            *original,
            *place.content,
        )
    images = _fitted(itertools.chain([first], frames), place.content, clock)
    yield from pieces_of(images, window, original, place.canvas)


def _fitted(
    frames: Iterator[np.ndarray], size: tuple[int, int], clock: Clock
) -> Iterator[np.ndarray]:
    """Yields the frames, resized to height and width."""
    while True:
        with clock("reading"):
            frame = next(frames, None)
            if frame is None:
                return
            image = fit_frame(frame, 0, 0, size)
        yield image


def pieces_of(
    images: Iterable[np.ndarray],
    window: Window,
    original: tuple[int, int],
    canvas: tuple[int, int] | None = None,
) -> Iterator[Piece]:
    """Yields the clips of a video; none if it has no frames.

    The number of frames need not be known: a clip is yielded as soon as it is known
    whether another one follows and, if clips overlap, where that one starts.

    Args:
      images: uint8 [h, w, 3], resized.
      window: window of the system.
      original: height and width of the frames in pixels.
      canvas: height and width to pad images to; None: the smallest that fits.

    Raises:
      ValueError: the window has more frames between clips than in a clip.
    """
    for kept, start, length, more in _groups(iter(images), window):
        canvas = canvas or _canvas(kept[0].shape[:2], window.multiple)
        clip = _clip(kept, length, start, more is None, canvas)
        height, width = clip.images.shape[1:3]
        sizes = Sizes((height, width), kept[0].shape[:2], original)
        rows = len(kept) + window.delay if more is None else more
        at_once = window.stride or length
        yield Piece(clip, sizes, start - window.delay, rows, at_once)


def _groups(
    frames: Iterator[np.ndarray], window: Window
) -> Iterator[tuple[list[np.ndarray], int, int, int | None]]:
    """Yields the frames, start, padded length and stride of each clip.

    The stride is the number of frames to the next clip; None for the last one.
    """
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


def _clip(
    kept: list[np.ndarray],
    length: int,
    start: int,
    last: bool,
    canvas: tuple[int, int],
) -> Clip:
    """Returns frames as a clip, padded to the canvas and to the clip length."""
    images = np.stack(kept)
    count, size = len(images), images.shape[1:3]
    height, width = np.subtract(canvas, size)
    images = np.pad(images, ((0, length - count), (0, height), (0, width), (0, 0)))
    return Clip(
        images,
        np.arange(length) < count,
        np.asarray(size, np.int32),
        np.asarray(start, np.int32),
        np.asarray(last),
    )
