"""Samples training clips: frames and augmentation, drawn once per clip.

A clip depends only on the seed and its position in the endless stream of clips, so any
host can resume at any position.
"""

from collections.abc import Iterator, Sequence
from itertools import count
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np

from data_pipeline.settings import Settings

_EPOCH, _CLIP = 0, 1  # keep the two kinds of random streams apart
_CROP_LONG_SIDE = 1_333  # maximum long side in pixels of frames at `crop_at`


@runtime_checkable
class HasExtent(Protocol):
    """Properties of a video that determine the choice of a clip."""

    @property
    def length(self) -> int:
        """Frames."""
        ...

    @property
    def height(self) -> int:
        """Pixels."""
        ...

    @property
    def width(self) -> int:
        """Pixels."""
        ...


@runtime_checkable
class HasVideos(Protocol):
    """Anything with videos, such as a `Dataset`."""

    @property
    def videos(self) -> Sequence[HasExtent]:
        """Videos that clips are drawn from."""
        ...


class ClipPlan(NamedTuple):
    """Choices that make one clip of T frames."""

    video: int  # index in the data set
    # int32 [T], ascending; fewer if the video is shorter, the rest being padding.
    frame_ids: np.ndarray
    crop: tuple[int, int, int, int]  # top, left, height, width in source pixels
    short_side: int  # pixels, as drawn; unused if zoomed
    size: tuple[int, int]  # height, width of the content after resizing
    flip: np.ndarray  # bool [T], which frames are mirrored
    colour: tuple[float, float, float]  # factors: brightness, contrast, saturation
    # For a pseudo-clip of an image: float64 [T, 4], see `pseudo_clip.draw_views`.
    views: np.ndarray | None = None
    part: int = 0  # part of a mixture that `video` belongs to


def local_batch_size(batch_size: int, *, host_index: int, host_count: int) -> int:
    """Returns the number of clips per batch on one host.

    Raises:
      ValueError: the batch cannot be divided among the hosts.
    """
    if host_count < 1 or not 0 <= host_index < host_count:
        raise ValueError(
            f"host_index: expected 0 .. host_count - 1 = {host_count - 1},"
            f" got {host_index}"
        )
    if batch_size % host_count:
        raise ValueError(
            f"data.batch_size: expected a multiple of the {host_count} hosts,"
            f" got {batch_size}"
        )
    return batch_size // host_count


def video_extents(dataset: HasVideos) -> np.ndarray:
    """Returns frames, height and width of each video: int64 [V, 3]."""
    rows = [(video.length, video.height, video.width) for video in dataset.videos]
    return np.array(rows, np.int64).reshape(-1, 3)


def plan_clip(
    seed: int,
    position: int,
    extents: np.ndarray,
    clips: Settings,
    *,
    streams: tuple[int, int] = (_EPOCH, _CLIP),
) -> ClipPlan:
    """Draws the clip at one position of the stream.

    Every epoch visits all videos once, in its own order. Frames, crop and short side
    are drawn as in Mask2Former's video data mapper (Cheng et al., 2021), with one crop
    for all frames.

    Args:
      seed: seed of the run.
      position: index of the clip in the stream over all hosts, from 0.
      extents: int64 [V, 3] from `video_extents`.
      clips: sampling settings.
      streams: numbers of the random streams of epochs and of clips.
    """
    of_epochs, of_clips = streams
    epoch, index = divmod(position, len(extents))
    video = int(generator(of_epochs, seed, epoch).permutation(len(extents))[index])
    length, height, width = (int(value) for value in extents[video])
    rng = generator(of_clips, seed, position)
    # Options added later have their own streams, so clips of older settings are stable.
    frame_rng, flip_rng, zoom_rng, crop_rng = rng.spawn(4)
    # Everything is always drawn, so that switching one option leaves the others as is.
    frame_ids = draw_near(rng, length, clips.frames, clips.frame_range)
    if clips.sampling.kind != "near":
        step = clips.sampling.max_step if clips.sampling.kind == "steps" else 1
        frame_ids = draw_steps(frame_rng, length, clips.frames, step)
    short_side = int(clips.short_side[rng.integers(len(clips.short_side))])
    flip = np.full(clips.frames, rng.random() < clips.flip)
    if clips.flip_per == "frame":
        flip = flip_rng.random(clips.frames) < clips.flip
    colour = 1.0 + clips.colour * rng.uniform(-1.0, 1.0, 3)
    crop = _draw_crop(rng, crop_rng, (height, width), clips)
    size = resized_size(
        *crop[2:], short_side, long_side=clips.long_side, canvas=clips.canvas
    )
    if clips.zoom is not None:
        scale = zoom_rng.uniform(*clips.zoom)
        crop, size = draw_window(zoom_rng, (height, width), scale, canvas=clips.canvas)
    return ClipPlan(
        video, frame_ids, crop, short_side, size, flip, tuple(colour.tolist())
    )


def plan_batches(
    dataset: HasVideos,
    clips: Settings,
    *,
    seed: int,
    start_step: int,
    host_index: int,
    host_count: int,
) -> Iterator[list[ClipPlan]]:
    """Yields the plans of this host's share of each batch, from `start_step` on.

    Concatenated in host order, the shares equal the batch of a single host.
    """
    batches = batch_positions(
        clips,
        seed=seed,
        start_step=start_step,
        host_index=host_index,
        host_count=host_count,
    )
    extents = video_extents(dataset)
    if not len(extents):
        raise ValueError("dataset: expected at least one video, got none")
    return (
        [plan_clip(seed, position, extents, clips) for position in positions]
        for positions in batches
    )


def batch_positions(
    clips: Settings, *, seed: int, start_step: int, host_index: int, host_count: int
) -> Iterator[range]:
    """Yields the positions of this host's clips of each batch, from `start_step` on."""
    local = local_batch_size(
        clips.batch_size, host_index=host_index, host_count=host_count
    )
    if not isinstance(seed, int) or seed < 0:
        raise ValueError(f"seed: expected a whole number of at least 0, got {seed!r}")
    if not isinstance(start_step, int) or start_step < 0:
        raise ValueError(f"start_step: expected 0, 1, .., got {start_step!r}")
    starts = (s * clips.batch_size + host_index * local for s in count(start_step))
    return (range(first, first + local) for first in starts)


def resized_size(
    height: int,
    width: int,
    short_side: int,
    *,
    long_side: int,
    canvas: tuple[int, int] | None,
) -> tuple[int, int]:
    """Returns height and width after resizing, in pixels.

    As in detectron2's `ResizeShortestEdge`: scales to the short side, then down to the
    maximum long side, then rounds.

    Deviation: frames that still exceed the canvas are scaled down to fit, as sizes are
    static; portrait videos on a landscape canvas become smaller than in the source.
    """
    scale = short_side / min(height, width)
    new = [height * scale, width * scale]
    if max(new) > long_side:
        new = [side * (long_side / max(new)) for side in new]
    if canvas is not None:
        fit = min(canvas[0] / new[0], canvas[1] / new[1])
        new = [side * min(1.0, fit) for side in new]
        new = [min(side, limit) for side, limit in zip(new, canvas, strict=True)]
    return max(1, int(new[0] + 0.5)), max(1, int(new[1] + 0.5))


def _draw_crop(
    rng: np.random.Generator,
    later: np.random.Generator,
    extent: tuple[int, int],
    clips: Settings,
) -> tuple[int, int, int, int]:
    """Draws top, left, height, width in source pixels; sides are independent.

    Args:
      rng: generator for size and position.
      later: generator for whether to crop, and the frame size it refers to.
      extent: height and width of the source in pixels.
      clips: settings.
    """
    crop, at = clips.crop, extent
    if crop is None or later.random() >= clips.crop_share:
        return 0, 0, *extent
    if clips.crop_at:
        short = int(later.choice(clips.crop_at))
        at = resized_size(*extent, short, long_side=_CROP_LONG_SIDE, canvas=None)
    sides = []
    for side, most in zip(extent, at, strict=True):
        drawn = int(rng.integers(min(most, crop[0]), min(most, crop[1]) + 1))
        sides.append(max(1, round(drawn * side / most)))
    top, left = (
        int(rng.integers(side - cut + 1))
        for side, cut in zip(extent, sides, strict=True)
    )
    return top, left, sides[0], sides[1]


def draw_window(
    rng: np.random.Generator,
    extent: tuple[int, int],
    scale: float,
    *,
    canvas: tuple[int, int],
) -> tuple[tuple[int, int, int, int], tuple[int, int]]:
    """Draws a canvas-sized window at a random position in the scaled frame.

    A scaled frame smaller than the canvas is taken whole. As for the clips of RGNNVIS
    (Brissman, Johnander et al., IJCV 2022).

    Deviation: their code centres smaller frames on the canvas.

    Args:
      rng: generator for the position.
      extent: height and width of the source in pixels.
      scale: target pixels per source pixel.
      canvas: height and width in target pixels.

    Returns:
      Top, left, height and width in source pixels; height and width of the result.
    """
    sides, size = [], []
    for side, limit in zip(extent, canvas, strict=True):
        cut = min(side, max(1, round(limit / scale)))
        sides.append(cut)
        whole = cut == side
        size.append(min(limit, max(1, round(side * scale))) if whole else limit)
    top, left = (
        int(rng.integers(side - cut + 1))
        for side, cut in zip(extent, sides, strict=True)
    )
    return (top, left, sides[0], sides[1]), (size[0], size[1])


def generator(kind: int, seed: int, number: int) -> np.random.Generator:
    """Returns the random generator of one kind for one epoch or clip of a run."""
    return np.random.Generator(
        np.random.Philox(np.random.SeedSequence([kind, seed, number]))
    )


def draw_near(
    rng: np.random.Generator, length: int, frames: int, frame_range: int
) -> np.ndarray:
    """Draws a uniform key frame and others near it: int32 [T], ascending.

    The others are distinct if the video has enough frames within `frame_range` of the
    key frame; otherwise all of these are taken and some repeat.

    Deviation: Mask2Former draws the others with replacement; identical for T = 2.
    """
    key = int(rng.integers(length))
    low, high = max(0, key - frame_range), min(length - 1, key + frame_range)
    near = np.delete(np.arange(low, high + 1), key - low)
    others = rng.permutation(near)[: frames - 1]
    missing = frames - 1 - len(others)
    repeats = rng.integers(low, high + 1, missing)
    return np.sort(np.concatenate([[key], others, repeats])).astype(np.int32)


def draw_steps(
    rng: np.random.Generator, length: int, frames: int, max_step: int
) -> np.ndarray:
    """Draws frames that each follow the last by 1 to `max_step`: int32 [T].

    The first is uniform among the frames that leave room for the others, and so is
    every step. With `max_step` 1 the frames are consecutive. A video of fewer than T
    frames is taken whole: int32 [length].

    As for the training sequences of Zhu et al., "Instance As Identity", ECCV 2022.

    Deviation: their code repeats the frames of a shorter video from its start.
    """
    if length <= frames:
        return np.arange(length, dtype=np.int32)
    ids = [int(rng.integers(length - frames + 1))]
    for after in reversed(range(frames - 1)):  # frames that still follow this one
        room = length - 1 - after - ids[-1]
        ids.append(ids[-1] + int(rng.integers(1, min(max_step, room) + 1)))
    return np.array(ids, np.int32)
