"""Online association of MaskTrack R-CNN.

Yang et al., "Video Instance Segmentation", ICCV 2019, Eq. 2 and 3, and the authors'
code. Each detection takes the column with the largest

  v(n) = log p(n) + detection ln(score) + iou IoU + category [same class],

with n = 0 for a new object, whose IoU is 0; p is the softmax of `match_logits`. If
several detections choose one track, the one with the largest v keeps it; the others are
dropped.

Deviation: the released code measures IoU in pixels of the original frame with inclusive
corners; here it is in canvas pixels. IoU is scale-invariant, so the only difference is
the extra pixel per side.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from vis_jax.ops.assignment import match_logits
from vis_jax.ops.boxes import box_iou
from vis_jax.settings import section
from vis_jax.structures import Clip, Detections
from vis_jax.trackers.track_bank import (
    TrackBank,
    bank_tracker,
    cue_scores,
    empty_bank,
    in_use,
    log_scores,
    resolve,
    write_bank,
)
from vis_jax.trackers.tracker import Cues, Tracker
from vis_jax.typing import Array, Float32


@section
class Settings(Cues):
    """`test.trackers.mask_track`: the published tracker.

    The score of a detection is the same for all tracks: it decides only between
    detections that choose one track.
    """

    # A new object counts as having the same class, as in the released code; Eq. 3 does
    # not say. Otherwise a known object of the class leads by gamma, and few tracks
    # start.
    category_of_new: bool = True
    # A track takes the label of its last detection; its first, in the released code.
    refresh_labels: bool = False


class MatchScores(NamedTuple):
    """Scores of each detection; column 0 = a new object, n = track n."""

    log_probs: Float32[Array, "N 1+M"]  # by appearance alone
    values: Float32[Array, "N 1+M"]  # v of Eq. 3


def match_scores(bank: TrackBank, found: Detections, settings: Settings) -> MatchScores:
    """Returns Eq. 3 for the detections of one frame.

    Columns of empty slots hold large negative values.
    """
    logits = match_logits(found.embeds, bank.embeds, in_use(bank))
    log_probs = jax.nn.log_softmax(logits)
    cues = cue_scores(
        found.scores,
        box_iou(found.boxes, bank.boxes),
        found.labels[:, None] == bank.labels[None],
        detection=settings.detection,
        iou=settings.iou,
        category=settings.category,
    )
    new = settings.detection * log_scores(found.scores)
    if settings.category_of_new:
        new = new + settings.category
    return MatchScores(
        log_probs, log_probs + jnp.concatenate([new[:, None], cues], axis=1)
    )


def build(settings: Settings, slots: int) -> Tracker:
    """Builds the tracker; it needs detections with embeddings.

    Args:
      settings: weights, thresholds and rules; see `Settings`.
      slots: most tracks of a video.
    """

    def start(clip: Clip, detections: Detections) -> TrackBank:
        del clip
        width = detections.embeds.shape[-1]
        if width == 0:
            raise ValueError(
                "test.trackers.mask_track: expected a detector with a track head, got"
                " detections without embeddings"
            )
        return empty_bank(slots, width)

    def step(bank: TrackBank, found: Detections) -> tuple[TrackBank, Array]:
        values = match_scores(bank, found, settings).values
        column = values.argmax(axis=1).astype(jnp.int32)
        known = found.valid & (column > 0)
        return write_bank(
            bank,
            found,
            column - 1,
            kept=resolve(values.max(axis=1), column, known),
            new=found.valid & (column == 0),
            refresh_labels=settings.refresh_labels,
        )

    return bank_tracker(start, step)
