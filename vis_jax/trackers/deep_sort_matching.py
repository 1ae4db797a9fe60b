"""Matching of detections to tracks: the two methods of `deep_sort.py`.

Letters: S track slots, D detections per frame.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from vis_jax.ops.assignment import hungarian
from vis_jax.trackers.kalman import GATE
from vis_jax.trackers.track_bank import cue_scores
from vis_jax.typing import Array, Bool, Float32, Int32


class Weights(NamedTuple):
    """Weights of the cues in a pair's score: those of `cue_scores`, and the cosine."""

    detection: float
    iou: float
    category: float
    look: float


class Limits(NamedTuple):
    """Largest distances at which a track and a detection may be one object."""

    look_distance: float
    iou_distance: float


class Pairs(NamedTuple):
    """Cues for each pair of a track and a detection."""

    descriptor_distances: Float32[Array, "S D"]  # 1 - cosine, to the most similar one
    gate_distances: Float32[Array, "S D"]  # `kalman.gating_distance`
    iou_distances: Float32[Array, "S D"]  # 1 - IoU with the predicted box
    same_label: Bool[Array, "S D"]


def match_by_cascade(
    pairs: Pairs,
    detected: Bool[Array, "D"],
    *,
    confirmed: Bool[Array, "S"],
    tentative: Bool[Array, "S"],
    unseen: Int32[Array, "S"],
    limits: Limits,
    max_age: int,
) -> Int32[Array, "D"]:
    """Matches confirmed tracks by appearance, most recent first; then by overlap.

    DeepSORT, Listing 1. IoU matching covers tentative tracks and confirmed tracks seen
    in the previous frame.

    Args:
      pairs: pairs of all slots and detections.
      detected: False marks padding.
      confirmed, tentative: states of the tracks.
      unseen: frames from a track's last detection to this frame.
      limits: for both methods.
      max_age: the largest `unseen` in the cascade.

    Returns:
      Slot of the track that each detection continues, S for none.
    """
    slots = confirmed.shape[0]
    alike = _alike(pairs, limits)
    close = pairs.iou_distances <= limits.iou_distance

    def match_age(
        age: Int32[Array, ""], matched: Int32[Array, "D"]
    ) -> Int32[Array, "D"]:
        allowed = alike & (confirmed & (unseen == age))[:, None] & detected[None]
        return _match_rest(
            matched, pairs.descriptor_distances, allowed, limit=limits.look_distance
        )

    oldest = jnp.minimum(jnp.max(jnp.where(confirmed, unseen, 0)), max_age)
    matched = jnp.full(detected.shape, slots, jnp.int32)
    matched = jax.lax.fori_loop(1, oldest + 1, match_age, matched)
    recent = (confirmed & (unseen == 1)).at[matched].set(False, mode="drop")
    allowed = close & (tentative | recent)[:, None] & detected[None]
    return _match_rest(matched, pairs.iou_distances, allowed, limit=limits.iou_distance)


def _match_rest(
    matched: Int32[Array, "D"],
    costs: Float32[Array, "S D"],
    allowed: Bool[Array, "S D"],
    *,
    limit: float,
) -> Int32[Array, "D"]:
    """Adds least-cost pairs among the detections that are still unmatched.

    Args:
      matched: slot of the track that each detection continues, S for none.
      costs: distances between tracks and detections.
      allowed: pairs that may be one object.
      limit: largest cost of an allowed pair.
    """
    slots = costs.shape[0]
    allowed = allowed & (matched == slots)[None]
    found = jax.lax.cond(
        allowed.any(),
        lambda: _assign(costs, allowed, forbidden=limit + 1e-5),
        lambda: jnp.full_like(matched, slots),
    )
    return jnp.minimum(matched, found)


def match_by_score(
    pairs: Pairs,
    detected: Bool[Array, "D"],
    scores: Float32[Array, "D"],
    *,
    live: Bool[Array, "S"],
    limits: Limits,
    weights: Weights,
) -> Int32[Array, "D"]:
    """Matches as many pairs as possible, with the largest total score.

    The score of a pair is the sum of its weighted cues. A pair is allowed if the boxes
    overlap enough, or if appearance is similar and the box is where the filter expects
    it.

    Args:
      pairs: pairs of all slots and detections.
      detected: False marks padding.
      scores: scores of the detections, in [0, 1].
      live: False marks slots without a track to continue.
      limits: largest distances in appearance and overlap.
      weights: weights of the cues.

    Returns:
      Slot of the track that each detection continues, S for none.
    """
    allowed = _alike(pairs, limits) | (pairs.iou_distances <= limits.iou_distance)
    values = cue_scores(
        scores,
        1 - pairs.iou_distances.T,
        pairs.same_label.T,
        detection=weights.detection,
        iou=weights.iou,
        category=weights.category,
    ).T
    values += weights.look * (1 - pairs.descriptor_distances)
    # A forbidden pair costs more than all allowed ones can differ, but not much more,
    # so that float32 can still resolve the scores. Logarithms are above -14.
    spread = 14 * weights.detection + weights.iou + weights.category + 2 * weights.look
    forbidden = spread * (detected.shape[0] + 1)
    allowed &= live[:, None] & detected[None]
    return _assign(-values, allowed, forbidden=forbidden)


def _alike(pairs: Pairs, limits: Limits) -> Bool[Array, "S D"]:
    """Returns pairs with similar appearance and the box where it is expected."""
    near = pairs.gate_distances <= GATE
    return near & (pairs.descriptor_distances <= limits.look_distance)


def _assign(
    costs: Float32[Array, "S D"], allowed: Bool[Array, "S D"], *, forbidden: float
) -> Int32[Array, "D"]:
    """Returns the slot of each detection in the least-cost assignment, S for none.

    Disallowed pairs cost `forbidden`, and are undone afterwards.
    """
    slots, detections = costs.shape
    # Every detection is assigned a row, so there must be at least as many rows.
    more = ((0, max(0, detections - slots)), (0, 0))
    costs = jnp.pad(
        jnp.where(allowed, costs, forbidden), more, constant_values=forbidden
    )
    rows = hungarian(costs, jnp.ones((detections,), bool))
    accepted = jnp.pad(allowed, more)[rows, jnp.arange(detections)]
    return jnp.where(accepted, rows, slots)
