"""Links precomputed detections of a video to tracks.

The result equals that of evaluating the detector and the tracker as one system. Axes:
T frames, N detections per frame, S track slots, K classes.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np

from vis_jax.compare.detections import RunLengths, VideoDetections
from vis_jax.evaluate.clips import Piece
from vis_jax.evaluate.stream import final_frames, live_tracks, noting_lost
from vis_jax.ops.chunks import map_chunks
from vis_jax.results.clock import NO_CLOCK
from vis_jax.results.collect import collect
from vis_jax.results.frame import FrameResult
from vis_jax.results.video import VideoResult
from vis_jax.structures import Clip, Detections, Predictions, Render
from vis_jax.systems.detect_then_track import Detector, make_linker
from vis_jax.trackers.tracker import Tracker


@runtime_checkable
class LinkVideo(Protocol):
    """Links the detections of a video."""

    def __call__(self, piece: Piece, detections: VideoDetections) -> VideoResult:
        """Returns the tracks.

        Args:
          piece: the whole video.
          detections: detections of the video.
        """
        ...


class LinkRules(NamedTuple):
    """Settings besides the tracker's that a result depends on."""

    slots: int  # maximum number of tracks in a video
    classes: int  # K
    top: int  # maximum number of tracks in a result
    chunk: int  # frames per call of the detector


def make_link(
    tracker: Tracker, detector: Detector, variables: dict, rules: LinkRules
) -> LinkVideo:
    """Returns the linking function, compiled once per canvas and bucket.

    Args:
      tracker: to link detections with.
      detector: detector that made the detections; computes features for trackers that
        read them.
      variables: variables of the whole system, preferably on the device already.
      rules: rules that turn tracks into the result.
    """
    linker = make_linker(tracker, slots=rules.slots, classes=rules.classes)

    @jax.jit
    def track(variables: dict, clip: Clip, found: Detections) -> Predictions:
        features = None
        if tracker.reads_features:
            features = map_chunks(
                lambda images: detector.features(
                    variables, images, jnp.asarray(clip.size)
                ),
                jnp.asarray(clip.images),
                rules.chunk,
            )
        state = linker.start(clip, found)
        return linker.link(variables, state, clip, found, features)[1]

    def link(piece: Piece, detections: VideoDetections) -> VideoResult:
        found = pad(detections.found, len(piece.clip.frame_valid), rules.classes)
        seen = track(variables, piece.clip, found)
        if tracker.draws:
            frames = final_frames(seen, piece, Render(), NO_CLOCK)
        else:
            frames = frames_of(seen, detections.masks)
        frames = noting_lost(frames, "test.tracks")
        return collect(frames, rules.top, piece.rows, piece.sizes.original)

    return link


def frames_of(seen: Predictions, masks: RunLengths) -> Iterator[FrameResult]:
    """Yields frames with the masks of the detections.

    Args:
      seen: predictions, with the track slot of each detection.
      masks: masks of the detections.
    """
    tracks, places = live_tracks(seen)
    slots = np.asarray(seen.slots)
    for frame, rles in enumerate(masks):
        rows = np.where(slots[frame] >= 0, places[slots[frame]], -1)
        found = {i: rle for i, rle in enumerate(rles) if rle and rows[i] >= 0}
        yield FrameResult(frame, tracks, rows[list(found)], list(found.values()))


def pad(found: Detections, frames: int, classes: int) -> Detections:
    """Pads detections [T, N] with empty frames at the end."""
    missing = frames - len(found.valid)

    def add(array: Any, value: int = 0) -> np.ndarray:
        widths = [(0, missing), *[(0, 0)] * (array.ndim - 1)]
        return np.pad(array, widths, constant_values=value)

    padded = jax.tree.map(add, found)
    return padded._replace(labels=add(found.labels, classes))
