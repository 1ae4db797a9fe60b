"""From the frames of one video to scored tracks with masks at the original size.

The system runs once for each canvas and number of frames of a clip; the result leaves
the device as masks, a few frames at a time, and becomes run lengths at once. So memory
holds one clip at model size, and no video of masks at the original size. The clip is
the whole video, or with `test.mode` "clip" a few frames of it.
"""

from collections.abc import Callable, Iterable

import jax
import numpy as np
from absl import logging

from data_pipeline.read_video import resize_frames
from vis_jax.evaluate import views
from vis_jax.evaluate.assemble import Tracks, VideoPrediction
from vis_jax.evaluate.clips import bucket, clips_of
from vis_jax.evaluate.masks import Sizes, frame_masks, run_lengths
from vis_jax.structures import Predictions
from vis_jax.systems.system import System, TestSettings

Infer = Callable[..., VideoPrediction]


def make_infer(system: System, variables: dict, test: TestSettings) -> Infer:
    """A function `infer(frames, height=, width=, num_frames=)` for one video.

    `frames` are its frames in order, uint8 [H, W, 3]; only resized copies are kept, of
    one clip, so an iterator that decodes one at a time bounds the memory.

    Args:
      system: what to run.
      variables: its parameters.
      test: `short_side` and `long_side` in pixels; `top`, how many tracks to return;
        `mode`: "video" with `frame_buckets`, the lengths that videos are padded to so
        that few programs are compiled, or "clip" with `clip_length` and `clip_stride`
        in frames; `tta`, short sides to average over, () for none.
    """
    if test.tta:
        return views.make_infer(system, variables, test)
    step, variables = jax.jit(system.step), jax.device_put(variables)

    def infer(
        frames: Iterable[np.ndarray], *, height: int, width: int, num_frames: int
    ) -> VideoPrediction:
        length, stride = _clip_shape(num_frames, test)
        resized = (
            resize_frames(frame[None], test.short_side, test.long_side)[0]
            for frame in frames
        )
        tracks, state, lost = Tracks(test.top), None, 0
        clips = clips_of(resized, num_frames, length=length, stride=stride)
        for clip, final in clips:
            state = system.start(clip) if state is None else state
            state, found = step(variables, state, clip)
            lost = int(found.lost)
            canvas = (clip.images.shape[1], clip.images.shape[2])
            content = (int(clip.size[0]), int(clip.size[1]))
            sizes = Sizes(canvas, content, (height, width))
            add_clip(
                tracks, found, sizes, first=int(clip.start), count=final, at_once=stride
            )
        if lost:
            logging.warning(
                "%d objects of a video found no free track: raise test.tracks", lost
            )
        return tracks.result(num_frames, (height, width))

    return infer


def _clip_shape(num_frames: int, test: TestSettings) -> tuple[int, int]:
    """Frames of a clip, and from one to the next."""
    if test.mode == "clip":
        return test.clip_length, test.clip_stride
    length = bucket(num_frames, test.frame_buckets)
    return length, length


def add_clip(
    tracks: Tracks,
    found: Predictions,
    sizes: Sizes,
    *,
    first: int,
    count: int,
    at_once: int,
) -> None:
    """Adds what a clip says of its tracks, and of those frames that no later clip has.

    Args:
      tracks: of the video.
      found: what the system says.
      sizes: of the frames.
      first: index in the video of the first frame.
      count: how many frames of the clip are final.
      at_once: the most frames that leave the device together.
    """
    keep = np.flatnonzero(np.asarray(found.valid))
    numbers = np.asarray(found.track_ids)
    tracks.update(numbers[keep].tolist(), np.asarray(found.class_probs)[keep])
    frames = frame_masks(found, sizes, keep=keep, count=count, at_once=at_once)
    for frame, (rows, masks) in enumerate(frames, first):
        for row, rle in zip(rows, run_lengths(masks), strict=True):
            tracks.add(int(numbers[row]), frame, rle)
