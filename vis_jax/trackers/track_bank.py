"""Fixed-size memory of tracks, and code shared by the trackers that use it.

Track n is in slot n - 1. Tracks never end: a reappearing object is compared with its
last detection after any time, as in MaskTrack R-CNN. Letters: N detections per frame, M
slots, E embedding channels.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp

from vis_jax.structures import Clip, Detections
from vis_jax.trackers.tracker import (
    Begin,
    FrameStep,
    Tracked,
    Tracker,
    scan_frames,
)
from vis_jax.typing import Array, Bool, Float32, Int32

_LEAST_SCORE = 1e-6  # keeps log scores finite


class TrackBank(NamedTuple):
    """The last detection of every track."""

    embeds: Float32[Array, "M E"]
    boxes: Float32[Array, "M 4"]  # canvas pixels
    labels: Int32[Array, "M"]
    tracks: Int32[Array, ""]  # number so far; they are in the first slots
    lost: Int32[Array, ""]  # detections that would have started a track without a slot


def empty_bank(slots: int, width: int) -> TrackBank:
    """Returns a bank without tracks.

    Args:
      slots: most tracks of a video.
      width: embedding channels; 0 for trackers without embeddings.
    """
    return TrackBank(
        embeds=jnp.zeros((slots, width)),
        boxes=jnp.zeros((slots, 4)),
        labels=jnp.zeros((slots,), jnp.int32),
        tracks=jnp.zeros((), jnp.int32),
        lost=jnp.zeros((), jnp.int32),
    )


def bank_tracker(start: Begin, step: FrameStep) -> Tracker:
    """Builds a tracker that works frame by frame on a bank.

    Args:
      start: returns the empty bank.
      step: links the detections of a frame; the state is the bank.
    """

    def track(
        variables: dict,
        bank: TrackBank,
        clip: Clip,
        detections: Detections,
        features: Any = None,
    ) -> tuple[TrackBank, Tracked]:
        del variables, features
        bank, track_ids = scan_frames(step, bank, detections, clip.frame_valid)
        return bank, Tracked(track_ids, bank.lost)

    return Tracker(start, track)


def in_use(bank: TrackBank) -> Bool[Array, "M"]:
    """Returns which slots hold a track."""
    return jnp.arange(bank.boxes.shape[0], dtype=jnp.int32) < bank.tracks


def log_scores(scores: Float32[Array, "N"]) -> Float32[Array, "N"]:
    """Returns log detection scores, finite also for a score of 0."""
    return jnp.log(jnp.maximum(scores, _LEAST_SCORE))


def cue_scores(
    scores: Float32[Array, "N"],
    overlaps: Float32[Array, "N M"],
    same_label: Bool[Array, "N M"],
    *,
    detection: float,
    iou: float,
    category: float,
) -> Float32[Array, "N M"]:
    """Scores detections for tracks by all cues but appearance.

    Yang et al., "Video Instance Segmentation", ICCV 2019, Eq. 3 without its first term:
    v = detection ln(score) + iou overlap + category [same class].

    Args:
      scores: scores of the detections.
      overlaps: overlaps of detections with tracks, in [0, 1].
      same_label: whether both have the same class.
      detection, iou, category: the weights alpha, beta, gamma of the paper.
    """
    found = detection * log_scores(scores)
    return found[:, None] + iou * overlaps + category * same_label.astype(jnp.float32)


def resolve(
    values: Float32[Array, "N"], slots: Int32[Array, "N"], wanted: Bool[Array, "N"]
) -> Bool[Array, "N"]:
    """Returns which detections get the slot they chose: the best, the first on ties.

    Args:
      values: score of each detection for its chosen slot.
      slots: chosen slots; several detections may choose one.
      wanted: False for detections without a choice.
    """
    order = jnp.arange(values.shape[0])
    first = order[None] < order[:, None]
    better = values[None] > values[:, None]
    equal = values[None] == values[:, None]
    rival = (slots[None] == slots[:, None]) & wanted[None]
    return wanted & ~jnp.any(rival & (better | (equal & first)), axis=1)


def write_bank(
    bank: TrackBank,
    found: Detections,
    slots: Int32[Array, "N"],
    *,
    kept: Bool[Array, "N"],
    new: Bool[Array, "N"],
    refresh_labels: bool,
) -> tuple[TrackBank, Int32[Array, "N"]]:
    """Returns the bank after a frame, and the identities of its detections.

    Args:
      bank: before the frame.
      found: detections of one frame; embeddings of the bank's width.
      slots: slots of the continued tracks; used where `kept`, each at most once.
      kept: detections that continue a track.
      new: detections that start a track, in order; without a free slot they are counted
        as lost.
      refresh_labels: whether a track takes the label of its last detection instead of
        its first.

    Returns:
      The bank, and 1, 2, .. or 0 for detections without a track.
    """
    size = bank.boxes.shape[0]
    created = jnp.cumsum(new.astype(jnp.int32))
    fresh = jnp.where(new, bank.tracks + created - 1, size)
    places = jnp.where(kept, slots, jnp.minimum(fresh, size))
    named = places if refresh_labels else jnp.where(kept, size, places)
    # Slot M is out of bounds: JAX drops the update.
    total = bank.tracks + new.sum(dtype=jnp.int32)
    tracks = jnp.minimum(total, size)
    bank = TrackBank(
        embeds=bank.embeds.at[places].set(found.embeds, mode="drop"),
        boxes=bank.boxes.at[places].set(found.boxes, mode="drop"),
        labels=bank.labels.at[named].set(found.labels, mode="drop"),
        tracks=tracks,
        lost=bank.lost + total - tracks,
    )
    return bank, jnp.where(places < size, places + 1, 0)
