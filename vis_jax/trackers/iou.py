"""IoUTracker+: links by boxes, scores and classes, without appearance.

Yang et al., "Video Instance Segmentation", ICCV 2019, describe this baseline in words;
`Settings` covers what they leave open. Each detection takes the track with the largest

  v(n) = detection ln(score) + iou IoU + category [same class],

provided that their boxes overlap enough; otherwise it starts a track. If several choose
one track, the one with the largest v keeps it.
"""

from typing import Literal

import jax.numpy as jnp

from vis_jax.ops.boxes import box_iou
from vis_jax.settings import Fraction, section
from vis_jax.structures import Clip, Detections
from vis_jax.trackers.track_bank import (
    TrackBank,
    bank_tracker,
    cue_scores,
    empty_bank,
    in_use,
    resolve,
    write_bank,
)
from vis_jax.trackers.tracker import Cues, Tracker
from vis_jax.typing import Array, Float32, Int32


@section
class Settings(Cues):
    """`test.trackers.iou`: IoUTracker+."""

    # Least IoU of a detection with the last box of its track; 0.3 in the paper.
    min_iou: Fraction = 0.3
    # Exclude tracks below it before the best one is chosen. As the paper reads, a
    # detection of another label prefers a distant track of its class, fails the
    # threshold and starts a track.
    filter_first: bool = False
    # A detection that loses its track to another one is dropped or starts a new track.
    losers: Literal["dropped", "new"] = "dropped"
    refresh_labels: bool = False  # a track takes the label of its last detection


def build(settings: Settings, slots: int) -> Tracker:
    """Builds the tracker.

    Args:
      settings: weights, thresholds and rules; see `Settings`.
      slots: most tracks of a video.
    """

    def start(clip: Clip, detections: Detections) -> TrackBank:
        del clip, detections
        return empty_bank(slots, 0)

    def step(bank: TrackBank, found: Detections) -> tuple[TrackBank, Array]:
        return link(bank, found, box_iou(found.boxes, bank.boxes), settings)

    return bank_tracker(start, step)


def link(
    bank: TrackBank,
    found: Detections,
    overlaps: Float32[Array, "N M"],
    settings: Settings,
) -> tuple[TrackBank, Int32[Array, "N"]]:
    """Links the detections of one frame, given any kind of overlap.

    Args:
      bank: without embeddings.
      found: detections of the frame.
      overlaps: overlaps of detections with tracks, in [0, 1].
      settings: weights, thresholds and rules; see `Settings`.

    Returns:
      The bank after the frame, and the identities of the detections.
    """
    values = cue_scores(
        found.scores,
        overlaps,
        found.labels[:, None] == bank.labels[None],
        detection=settings.detection,
        iou=settings.iou,
        category=settings.category,
    )
    close = in_use(bank)[None] & (overlaps >= settings.min_iou)
    usable = close if settings.filter_first else in_use(bank)[None]
    values = jnp.where(usable, values, -jnp.inf)
    slot = values.argmax(axis=1).astype(jnp.int32)
    chosen = jnp.take_along_axis(close, slot[:, None], axis=1)[:, 0]
    known = found.valid & chosen
    kept = resolve(values.max(axis=1), slot, known)
    begins = ~kept if settings.losers == "new" else ~known
    return write_bank(
        bank,
        found._replace(embeds=found.embeds[:, :0]),
        slot,
        kept=kept,
        new=found.valid & begins,
        refresh_labels=settings.refresh_labels,
    )
