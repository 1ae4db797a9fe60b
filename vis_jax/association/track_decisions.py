"""Decisions of RGNNVIS: detections that continue a track, and those that begin one.

Brissman et al., "Recurrent graph neural networks for video instance segmentation", IJCV
2022, sections 3.3 and 5.4, and the released code. Letters: M track slots, N detections
of a frame, A numbers of a description.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from vis_jax.typing import Array, Bool, Float32, Int32

FREE, ACTIVE, INACTIVE = 0, 1, 2  # inactive: not in this frame
NEVER = -1e5  # logit of what cannot be
# Of heuristic decisions: weights of two cues, and the least score that counts.
_OVERLAP, _CATEGORY, _LEAST_SCORE = 2.0, 10.0, -10.0


class Thresholds(NamedTuple):
    """Logits above which a track has a detection, and a detection begins a track."""

    match: float
    start: float


def thresholds(match: float, start: float) -> Thresholds:
    """Thresholds given as probabilities between 0 and 1."""
    return Thresholds(*(math.log(p / (1.0 - p)) for p in (match, start)))


class Decision(NamedTuple):
    """The tracks after a frame."""

    status: Int32[Array, "M"]
    born: Bool[Array, "M"]
    chosen: Int32[Array, "M"]  # the detection of each active track
    lost: Int32[Array, ""]  # detections of this frame that found no free slot


def decide(
    status: Int32[Array, "M"],
    match_logits: Float32[Array, "M N"],
    start_logits: Float32[Array, "N"],
    thresholds: Thresholds,
) -> Decision:
    """Every pair by itself: several tracks may have one detection.

    A detection that a track has may begin another one, too.

    Args:
      status: before the frame.
      match_logits, start_logits: NEVER where there is no track or no detection.
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
    """Every detection goes to one track, or begins one, whichever score is higher.

    A track whose best detection is another track's has none.
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
    """New tracks take the free slots in order, the best detections first.

    Args:
      status: before the frame.
      matched: tracks that have a detection; those of free slots are not read.
      best: the detection of each.
      begins: detections that begin a track. Those beyond the free slots are lost.
    """
    there = status != FREE
    free = ~there
    place = jnp.cumsum(free) - 1  # of a free slot among the free ones
    rank = jnp.cumsum(begins) - 1  # of a detection among those that begin a track
    born = free & (place < begins.sum())
    first = (begins[None] & (rank[None] == place[:, None])).argmax(axis=1)
    seen = jnp.where(matched, ACTIVE, INACTIVE)
    return Decision(
        jnp.where(born, ACTIVE, jnp.where(there, seen, FREE)).astype(jnp.int32),
        born,
        jnp.where(born, first, best).astype(jnp.int32),
        jnp.maximum(begins.sum() - free.sum(), 0).astype(jnp.int32),
    )


def description_scores(
    looks: Float32[Array, "M A"],
    there: Bool[Array, "M"],
    x: Float32[Array, "N A"],
    valid: Bool[Array, "N"],
) -> tuple[Float32[Array, "M N"], Float32[Array, "N"]]:
    """Log-probabilities that a detection is a track's, or none's, from products.

    Equation 1 of Yang et al., "Video Instance Segmentation", ICCV 2019.

    Args:
      looks: of the tracks.
      there: tracks that there are.
      x: of the detections.
      valid: detections that there are.
    """
    products = jnp.where(there[:, None], looks @ x.T, NEVER)
    logits = jnp.concatenate([products, jnp.zeros_like(products[:1])])
    found = jax.nn.log_softmax(logits, axis=0)
    found = jnp.where(valid[None], found, NEVER)
    return jnp.where(there[:, None], found[:-1], NEVER), found[-1]


def add_cues(
    scores: Float32[Array, "M N"],
    *,
    confidence: Float32[Array, "N"],
    overlap: Float32[Array, "M N"],
    same_class: Bool[Array, "M N"],
) -> Float32[Array, "M N"]:
    """Scores with the cues of MaskTrack R-CNN, in the form of the released code.

    The confidence counts as it is, not as a logarithm, and a new track gets no cue.
    """
    same = same_class.astype(jnp.float32)
    return scores + confidence[None] + _OVERLAP * overlap + _CATEGORY * same
