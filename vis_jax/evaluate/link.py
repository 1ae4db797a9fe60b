"""Detections of a video, found before, linked to tracks.

The result is what evaluating the detector and the tracker as one system gives. Axes: T
frames, N detections of a frame, S track slots, K classes.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging

from vis_jax.evaluate.assemble import Tracks, VideoPrediction
from vis_jax.evaluate.detections import (
    Footage,
    RunLengths,
    VideoDetections,
    encode,
)
from vis_jax.structures import Clip, Detections
from vis_jax.systems.detect_then_track import Votes, add_votes, class_probs
from vis_jax.trackers.tracker import Tracker
from vis_jax.typing import Array, Float32, Int32

Link = Callable[[Footage, VideoDetections], VideoPrediction]


class Said(NamedTuple):
    """The tracks of a video without their masks."""

    track_ids: Int32[Array, "T N"]  # 0 = not shown
    probs: Float32[Array, "S K"]  # of track 1, 2, ..
    counts: Float32[Array, "S"]  # detections with a vote; no track without one


class OwnMasks(NamedTuple):
    """Masks that a tracker made; `boxes` say what they cover, in canvas pixels."""

    logits: Float32[Array, "T N h w"]
    boxes: Float32[Array, "T N 4"]


def make_link(
    tracker: Tracker, variables: dict, *, slots: int, classes: int, top: int
) -> Link:
    """A function that gives the tracks of a video.

    It is compiled once for each canvas and bucket of frames.

    Args:
      tracker: links detections.
      variables: of the whole system, best on the device.
      slots: most tracks of a video.
      classes: K.
      top: the most tracks of a result.
    """

    @jax.jit
    def track(
        variables: dict, state: Any, clip: Clip, found: Detections
    ) -> tuple[Said, OwnMasks | None, Int32[Array, ""]]:
        _, tracked = tracker.track(variables, state, clip, found)
        shown = tracked.shown
        said = vote(tracked.track_ids, shown, slots=slots, classes=classes)
        given = shown.mask_logits is found.mask_logits and shown.boxes is found.boxes
        # Without masks of its own they need not leave the device.
        own = None if given else OwnMasks(shown.mask_logits, shown.boxes)
        return said, own, tracked.lost

    def link(footage: Footage, detections: VideoDetections) -> VideoPrediction:
        clip = footage.clip
        found = pad(detections.found, len(clip.frame_valid), classes)
        state = tracker.start(clip, found)
        said, own, lost = track(variables, state, clip, found)
        if int(lost):
            logging.warning(
                "%d objects of a video found no free track: raise test.tracks",
                int(lost),
            )
        masks = detections.masks
        ids = np.asarray(said.track_ids)[: footage.frames]
        if own is not None:
            logits, boxes = (np.asarray(x)[: footage.frames] for x in own)
            masks = encode(logits, boxes, wanted=ids > 0, sizes=footage.sizes)
        said = said._replace(track_ids=jnp.asarray(ids))
        return to_prediction(said, masks, top=top, size=footage.sizes.original)

    return link


@functools.partial(jax.jit, static_argnames=("slots", "classes"))
def vote(
    track_ids: Int32[Array, "T N"],
    shown: Detections,
    *,
    slots: int,
    classes: int,
) -> Said:
    """Class and score of every track, as `detect_then_track` counts them."""
    zeros = jnp.zeros((slots,), jnp.float32)
    votes = Votes(zeros, zeros, jnp.zeros((slots, classes), jnp.float32))
    votes = add_votes(votes, track_ids, shown)
    ids = jnp.where(shown.valid, track_ids, 0)
    return Said(ids, class_probs(votes), votes.counts)


def to_prediction(
    said: Said, masks: RunLengths, *, top: int, size: tuple[int, int]
) -> VideoPrediction:
    """The best tracks of a video with their masks.

    Args:
      said: without frames that are padding.
      masks: of every detection with a track.
      top: the most tracks of the result.
      size: height and width of a mask in pixels.
    """
    probs, ids = np.asarray(said.probs), np.asarray(said.track_ids)
    order = np.argsort(-probs.max(axis=1), kind="stable")
    slots = order[np.asarray(said.counts)[order] > 0]
    tracks, known = Tracks(top), set((slots + 1).tolist())
    tracks.update((slots + 1).tolist(), probs[slots])
    for frame, row in enumerate(ids.tolist()):
        for number, rle in zip(row, masks[frame], strict=True):
            if number in known and rle is not None:
                tracks.add(number, frame, rle)
    return tracks.result(len(ids), size)


def pad(found: Detections, frames: int, classes: int) -> Detections:
    """Detections [T, N] with frames without any at the end."""
    missing = frames - len(found.valid)

    def add(array, value: int = 0) -> np.ndarray:
        widths = [(0, missing), *[(0, 0)] * (array.ndim - 1)]
        return np.pad(array, widths, constant_values=value)

    padded = jax.tree.map(add, found)
    return padded._replace(labels=add(found.labels, classes))
