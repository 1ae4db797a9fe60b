"""Which true box an anchor or a RoI stands for, by overlap.

Ren et al., "Faster R-CNN", NeurIPS 2015, section 3.1.2. Every function takes the IoU of
all M true boxes with all N candidates.
"""

from typing import NamedTuple

import jax.numpy as jnp

from vis_jax.typing import Array, Bool, Float32, Int32

# IoUs this close, relatively, are equal: compilers round them differently by place.
_TIE = 1e-6


class Matching(NamedTuple):
    """What each candidate stands for; neither positive nor negative = ignored."""

    truth: Int32[Array, "N"]  # 0 .. M - 1, 0 where there is no valid truth
    positive: Bool[Array, "N"]
    negative: Bool[Array, "N"]


def match_by_iou(
    iou: Float32[Array, "M N"],
    truth_valid: Bool[Array, "M"],
    *,
    positive: float,
    negative: float,
) -> Matching:
    """Each candidate to the truth it overlaps most, the first one if there are several.

    Args:
      iou: of truth and candidates.
      truth_valid: False marks padding.
      positive: least IoU of a positive.
      negative: IoU below which a candidate is negative; without truth all are.
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
    """Makes the candidates that a truth overlaps most positive, and its own.

    The rule of mmdetection. Of several truths the last takes a candidate. Deviation:
    with `least` 0, a truth that overlaps nothing claims every candidate there, but none
    here.

    Args:
      matching: from `match_by_iou`.
      iou, truth_valid: as there.
      least: a truth whose best IoU is lower claims nothing; 0 claims with any overlap.
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
    """As `claim_best`, but the truth of a candidate does not change.

    The rule of torchvision and detectron2. Deviation: there, a truth that overlaps
    nothing makes every candidate it does not overlap positive; here it adds nothing.
    """
    claimed = claim_best(matching, iou, truth_valid, least=least)
    return claimed._replace(truth=matching.truth)


def _is_best(
    iou: Float32[Array, "M N"], truth_valid: Bool[Array, "M"], least: float
) -> Bool[Array, "M N"]:
    highest = iou.max(axis=1, keepdims=True)
    enough = truth_valid[:, None] & (highest >= least) & (highest > 0)
    return enough & (iou >= highest * (1 - _TIE))
