"""Decisions of RGNNVIS: which detections continue a track, and which start one.

Brissman et al., "Recurrent graph neural networks for video instance segmentation", IJCV
2022, sections 3.3 and 5.4, and the released code. Letters: M track slots, N detections
per frame, A appearance channels.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from vis_jax.typing import Array, Bool, Float32, Int32

FREE, ACTIVE, INACTIVE = 0, 1, 2  # inactive: absent from this frame
NEVER = -1e5  # logit of an impossible decision
# For heuristic decisions: weights of two cues, and the minimum score.
_OVERLAP, _CATEGORY, _LEAST_SCORE = 2.0, 10.0, -10.0


class Thresholds(NamedTuple):
    """Logits above which a track matches a detection, or a detection starts one."""

    match: float
    start: float


def thresholds(match: float, start: float) -> Thresholds:
    """Returns thresholds given as probabilities between 0 and 1."""
    return Thresholds(*(math.log(p / (1.0 - p)) for p in (match, start)))


class Decision(NamedTuple):
    """State of the tracks after a frame."""

    status: Int32[Array, "M"]
    born: Bool[Array, "M"]
    chosen: Int32[Array, "M"]  # detection of each active track
    lost: Int32[Array, ""]  # detections of this frame that found no free slot


def decide(
    status: Int32[Array, "M"],
    match_logits: Float32[Array, "M N"],
    start_logits: Float32[Array, "N"],
    thresholds: Thresholds,
) -> Decision:
    """Decides every pair on its own: several tracks may share a detection.

    A detection matched to a track may also start another one.

    Args:
      status: before the frame.
      match_logits, start_logits: NEVER where the track or detection does not exist.
      thresholds: see the type.
    """
    best = match_logits.argmax(axis=1).astype(jnp.int32)
    matched = match_logits.max(axis=1) >= thresholds.match
    return allocate(status, matched, best, start_logits > thresholds.start)


def decide_by_scores(
    status: Int32[Array, "M"],
    match_scores: Float32[Array, "M N"],
    start_scores: Float32[Array, "N"],
) -> Decision:
    """Assigns every detection to one track or a new one, whichever scores higher.

    A track whose best detection belongs to another track gets none.
    """
    most = jnp.maximum(match_scores.max(axis=0), start_scores)
    best = match_scores.argmax(axis=1).astype(jnp.int32)
    score = match_scores.max(axis=1)
    matched = (score >= most[best]) & (score >= _LEAST_SCORE)
    begins = (start_scores >= most) & (start_scores >= _LEAST_SCORE)
    return allocate(status, matched, best, begins)


def allocate(
    status: Int32[Array, "M"],
    matched: Bool[Array, "M"],
    best: Int32[Array, "M"],
    begins: Bool[Array, "N"],
) -> Decision:
    """Assigns new tracks to free slots in order, best detections first.

    Args:
      status: before the frame.
      matched: tracks with a detection; ignored for free slots.
      best: detection of each track.
      begins: detections that start a track. Those beyond the free slots are lost.
    """
    exists = status != FREE
    free = ~exists
    place = jnp.cumsum(free) - 1  # index of each free slot among the free ones
    rank = jnp.cumsum(begins) - 1  # index of each detection that starts a track
    born = free & (place < begins.sum())
    first = (begins[None] & (rank[None] == place[:, None])).argmax(axis=1)
    seen = jnp.where(matched, ACTIVE, INACTIVE)
    return Decision(
        jnp.where(born, ACTIVE, jnp.where(exists, seen, FREE)).astype(jnp.int32),
        born,
        jnp.where(born, first, best).astype(jnp.int32),
        jnp.maximum(begins.sum() - free.sum(), 0).astype(jnp.int32),
    )


def description_scores(
    appearance: Float32[Array, "M A"],
    exists: Bool[Array, "M"],
    x: Float32[Array, "N A"],
    valid: Bool[Array, "N"],
) -> tuple[Float32[Array, "M N"], Float32[Array, "N"]]:
    """Returns log-probabilities that a detection belongs to each track, or to none.

    Equation 1 of Yang et al., "Video Instance Segmentation", ICCV 2019: softmax of dot
    products.

    Args:
      appearance: appearance of the tracks.
      exists: existing tracks.
      x: appearance of the detections.
      valid: existing detections.
    """
    products = jnp.where(exists[:, None], appearance @ x.T, NEVER)
    logits = jnp.concatenate([products, jnp.zeros_like(products[:1])])
    found = jax.nn.log_softmax(logits, axis=0)
    found = jnp.where(valid[None], found, NEVER)
    return jnp.where(exists[:, None], found[:-1], NEVER), found[-1]


def add_cues(
    scores: Float32[Array, "M N"],
    *,
    confidence: Float32[Array, "N"],
    overlap: Float32[Array, "M N"],
    same_class: Bool[Array, "M N"],
) -> Float32[Array, "M N"]:
    """Adds the cues of MaskTrack R-CNN, in the form of the released code.

    The confidence itself is added, not its logarithm; new tracks get no cue.
    """
    same = same_class.astype(jnp.float32)
    return scores + confidence[None] + _OVERLAP * overlap + _CATEGORY * same
