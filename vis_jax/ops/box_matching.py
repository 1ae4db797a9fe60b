"""Matches anchors or RoIs to ground-truth boxes by overlap.

Ren et al., "Faster R-CNN", NeurIPS 2015, section 3.1.2. Every function takes the IoU of
all M ground-truth boxes with all N candidates.
"""

from typing import NamedTuple

import jax.numpy as jnp

from vis_jax.typing import Array, Bool, Float32, Int32

# Relative tolerance for equal IoUs, which compilers round differently by position.
_TIE = 1e-6


class Matching(NamedTuple):
    """Match of each candidate; neither positive nor negative = ignored."""

    truth: Int32[Array, "N"]  # 0 .. M - 1; 0 without valid ground truth
    positive: Bool[Array, "N"]
    negative: Bool[Array, "N"]


def match_by_iou(
    iou: Float32[Array, "M N"],
    truth_valid: Bool[Array, "M"],
    *,
    positive: float,
    negative: float,
) -> Matching:
    """Matches each candidate to the ground truth it overlaps most, the first on ties.

    Args:
      iou: IoU of ground truth and candidates.
      truth_valid: False marks padding.
      positive: least IoU of a positive.
      negative: IoU below which a candidate is negative; without ground truth all are.
    """
    masked = jnp.where(truth_valid[:, None], iou, -1.0)
    truth, best = jnp.argmax(masked, axis=0).astype(jnp.int32), masked.max(axis=0)
    return Matching(truth, best >= positive, best < negative)


def claim_best(
    matching: Matching,
    iou: Float32[Array, "M N"],
    truth_valid: Bool[Array, "M"],
    *,
    least: float,
) -> Matching:
    """Makes each ground truth's best candidates positive and matches them to it.

    Low-quality matches as in mmdetection; on conflict the last ground truth wins.
    Deviation: in mmdetection, with `least` 0, a ground truth that overlaps nothing
    claims every candidate; here it claims none.

    Args:
      matching: from `match_by_iou`.
      iou, truth_valid: see `match_by_iou`.
      least: a ground truth whose best IoU is lower claims nothing; 0 claims any
        overlap.
    """
    best = _is_best(iou, truth_valid, least)
    claimed = best.any(axis=0)
    last = iou.shape[0] - 1 - jnp.argmax(best[::-1], axis=0).astype(jnp.int32)
    return Matching(
        jnp.where(claimed, last, matching.truth),
        matching.positive | claimed,
        matching.negative & ~claimed,
    )


def add_best(
    matching: Matching,
    iou: Float32[Array, "M N"],
    truth_valid: Bool[Array, "M"],
    *,
    least: float,
) -> Matching:
    """Same as `claim_best`, but a candidate keeps its ground truth.

    Low-quality matches as in torchvision and detectron2. Deviation: there, a ground
    truth that overlaps nothing makes every candidate it does not overlap positive; here
    it adds nothing.
    """
    claimed = claim_best(matching, iou, truth_valid, least=least)
    return claimed._replace(truth=matching.truth)


def _is_best(
    iou: Float32[Array, "M N"], truth_valid: Bool[Array, "M"], least: float
) -> Bool[Array, "M N"]:
    highest = iou.max(axis=1, keepdims=True)
    enough = truth_valid[:, None] & (highest >= least) & (highest > 0)
    return enough & (iou >= highest * (1 - _TIE))
