"""Any detector with any tracker: objects are found frame by frame, then linked.

Yang et al., "Video Instance Segmentation", ICCV 2019. Letters: S track slots, N objects
of a frame, K classes.
"""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp

from vis_jax.settings import Count, OneOf, Range, Share, section
from vis_jax.structures import Clip, Detections, Predictions
from vis_jax.systems import system
from vis_jax.trackers import TRACKERS, Build
from vis_jax.trackers import Settings as Trackers
from vis_jax.trackers.tracker import Tracker
from vis_jax.typing import Array, Float32, Int32, UInt8


@section
class TestSettings(system.TestSettings):
    """`test` of systems that find objects frame by frame and link them then."""

    # A tracker sees every frame once: clips of test.mode "clip" are single frames.
    clip_length: Annotated[int, Range(least=1, most=1)] = 1
    clip_stride: Annotated[int, Range(least=1, most=1)] = 1  # see clip_length
    score: Share = 0.05  # least score of a detection
    nms: Share = 0.5  # IoU above which the better of two boxes of a class suppresses
    objects: Count = 10  # most detections in a frame
    tracks: Count = 360  # most tracks of a video
    tracker: Annotated[str, OneOf(TRACKERS)] = "mask_track"  # what links detections
    trackers: Trackers = Trackers()

    def __post_init__(self):
        super().__post_init__()
        if self.tta:
            raise ValueError(f"tta: expected () with a tracker, got {self.tta}")


class Appearance(NamedTuple):
    """Descriptions of objects, as in `Detections`."""

    embeds: Float32[Array, "*lead N E"]
    looks: Float32[Array, "*lead N F"]


class Detector(NamedTuple):
    """Pure functions on frames of one video."""

    # (rng, Batch) -> variables, as `System.init`
    init: Callable
    # (variables, images uint8 [T, H, W, 3], size int32 [2]) -> Detections [T, N]
    detect: Callable[[dict, Array, Array], Detections]
    # (variables, images, size, boxes float32 [T, N, 4]) -> Appearance [T, N] of boxes
    # that come from elsewhere, such as the truth
    describe: Callable[[dict, Array, Array, Array], Appearance]
    # (frames) -> Detections [T, N] without any object
    empty: Callable[[int], Detections]


class Votes(NamedTuple):
    """What the detections of every track say of its class and score."""

    scores: Float32[Array, "S"]  # sums
    counts: Float32[Array, "S"]
    labels: Float32[Array, "S K"]


class State(NamedTuple):
    """A video up to some frame."""

    tracker: Any
    votes: Votes


def start_and_step(
    detector: Detector, tracker: Tracker, *, slots: int, classes: int, chunk: int
):
    """`start` and `step` of a system, for clips of any length.

    Every slot of the tracker is one prediction, and keeps its number.

    Args:
      detector: finds objects in frames.
      tracker: links them.
      slots: most tracks of a video.
      classes: K.
      chunk: frames that the detector sees at once.
    """

    def start(clip: Clip) -> State:
        frames = len(clip.frame_valid)
        zeros = jnp.zeros((slots,), jnp.float32)
        votes = Votes(zeros, zeros, jnp.zeros((slots, classes), jnp.float32))
        return State(tracker.start(clip, detector.empty(frames)), votes)

    def step(variables: dict, state: State, clip: Clip) -> tuple[State, Predictions]:
        found = in_chunks(
            lambda images: detector.detect(variables, images, jnp.asarray(clip.size)),
            jnp.asarray(clip.images),
            chunk,
        )
        real = found.valid & jnp.asarray(clip.frame_valid)[:, None]
        inner, tracked = tracker.track(
            variables, state.tracker, clip, found._replace(valid=real)
        )
        ids, shown = tracked.track_ids, tracked.shown
        votes = add_votes(state.votes, ids, shown)
        found = predictions(votes, ids, shown)._replace(lost=tracked.lost)
        return State(inner, votes), found

    return start, step


def in_chunks(function: Callable, images: UInt8[Array, "T H W 3"], chunk: int):
    """`function` of frames, a few at a time, which bounds the memory."""
    frames = images.shape[0]
    if frames <= chunk:
        return function(images)
    images = jnp.pad(images, ((0, -frames % chunk), *[(0, 0)] * 3))
    out = jax.lax.map(function, images.reshape(-1, chunk, *images.shape[1:]))
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[:frames], out)


def add_votes(votes: Votes, track_ids: Int32[Array, "T N"], shown: Detections) -> Votes:
    """Adds the detections of some frames; those with a score of 0 have no vote."""
    slots, classes = votes.labels.shape
    counted = (track_ids > 0) & shown.valid & (shown.scores > 0)
    slot = jnp.where(counted, track_ids - 1, slots).ravel()
    label = jnp.minimum(shown.labels, classes - 1).ravel()
    return Votes(
        votes.scores.at[slot].add(shown.scores.ravel(), mode="drop"),
        votes.counts.at[slot].add(1.0, mode="drop"),
        votes.labels.at[slot, label].add(1.0, mode="drop"),
    )


def class_probs(votes: Votes) -> Float32[Array, "S K"]:
    """The mean score of each track at its most frequent class, the first of equals.

    Yang et al., section 4; all other classes, and tracks without votes, have 0.
    """
    mean = votes.scores / jnp.maximum(votes.counts, 1.0)
    label = votes.labels.argmax(axis=1)
    return mean[:, None] * jax.nn.one_hot(label, votes.labels.shape[1])


def predictions(
    votes: Votes, track_ids: Int32[Array, "T N"], shown: Detections
) -> Predictions:
    """The tracks of a clip, best score first."""
    probs = class_probs(votes)
    slots, frames = len(probs), len(track_ids)
    order = jnp.argsort(-probs.max(axis=1), stable=True)
    slot = jnp.where((track_ids > 0) & shown.valid, track_ids - 1, slots)
    frame = jnp.broadcast_to(jnp.arange(frames)[:, None], slot.shape)

    def place(values: Float32[Array, "T N ..."]) -> Float32[Array, "S T ..."]:
        """By track and frame, in the order of the scores."""
        empty = jnp.zeros((slots, frames, *values.shape[2:]), values.dtype)
        return empty.at[slot, frame].set(values, mode="drop")[order]

    return Predictions(
        class_probs=probs[order],
        track_ids=order.astype(jnp.int32) + 1,
        valid=votes.counts[order] > 0,
        mask_logits=place(shown.mask_logits),
        mask_boxes=place(shown.boxes),
    )


def make_tracker(test: TestSettings, trackers: Mapping[str, Build]) -> Tracker:
    """The tracker `test.tracker` with its settings and `test.tracks` slots.

    Args:
      test: of the config.
      trackers: those that there are, by name.

    Raises:
      ValueError: it has to see all frames of a video, which `test.mode` does not allow.
    """
    values = getattr(test.trackers, test.tracker)
    tracker = trackers[test.tracker](values, test.tracks)
    if test.mode == "clip" and tracker.offline:
        raise ValueError(
            f"test.mode: expected 'video' with test.tracker {test.tracker!r}, which has"
            " to see all frames, got 'clip'"
        )
    return tracker
