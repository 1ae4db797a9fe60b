"""Training targets of Mask R-CNN: sampled anchors and regions of one image.

Ren et al., "Faster R-CNN", NeurIPS 2015, section 3.1. Letters: S samples, R regions.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from vis_jax.ops.box_coder import BoxCoder, encode
from vis_jax.ops.box_matching import Matching, match_by_iou
from vis_jax.ops.boxes import box_iou
from vis_jax.ops.sampling import sample_balanced
from vis_jax.settings import Count, section
from vis_jax.typing import Array, Bool, Float32, Int32, PRNGKeyArray


class MatchRule(NamedTuple):
    """Rule for matching and sampling candidates.

    Attributes:
      positive: least IoU of a positive.
      negative: IoU below which a candidate is negative.
      rescue: low-quality matching: `claim_best` of `ops.box_matching` or an equivalent.
      least: least IoU of a low-quality match; above 1 disables them.
      size: number of samples.
      most_positive: most positives among them.
    """

    positive: float
    negative: float
    rescue: Callable
    least: float
    size: int
    most_positive: int


@section
class Settings:
    """`model.regions`: the regions of an image that train the heads."""

    sampled: Count = 128  # proposals and ground-truth boxes
    positives: Count = 32  # most positives among the samples

    def __post_init__(self) -> None:
        if self.positives > self.sampled:
            raise ValueError(
                f"positives: expected at most sampled, {self.sampled}, got"
                f" {self.positives}"
            )


class ImageTruth(NamedTuple):
    """Ground-truth boxes of one image."""

    boxes: Float32[Array, "M 4"]  # pixels
    labels: Int32[Array, "M"]  # 0 .. K - 1
    valid: Bool[Array, "M"]


class AnchorTargets(NamedTuple):
    """Sampled anchors: positives, then negatives, then padding."""

    chosen: Int32[Array, "*lead S"]  # indices of all anchors
    deltas: Float32[Array, "*lead S 4"]  # to the ground truth; used where positive
    positive: Bool[Array, "*lead S"]
    valid: Bool[Array, "*lead S"]


class RegionTargets(NamedTuple):
    """Sampled regions: positives, then negatives, then padding."""

    boxes: Float32[Array, "*lead S 4"]
    truth: Int32[Array, "*lead S"]  # ground-truth index; used where positive
    labels: Int32[Array, "*lead S"]  # K = background
    deltas: Float32[Array, "*lead S 4"]  # to the ground truth; used where positive
    positive: Bool[Array, "*lead S"]
    valid: Bool[Array, "*lead S"]


class SampledRegions(NamedTuple):
    """Sampled regions of an image to train the heads on."""

    targets: RegionTargets
    left_out: Int32[Array, "*lead"]  # positive regions beyond `MatchRule.most_positive`
    is_truth: Bool[Array, "*lead S"]  # ground-truth boxes themselves


def anchor_targets(
    rng: PRNGKeyArray,
    anchors: Float32[Array, "A 4"],
    truth: ImageTruth,
    *,
    usable: Bool[Array, "A"],
    coder: BoxCoder,
    rule: MatchRule,
) -> AnchorTargets:
    """Samples anchors to train the region proposal network on.

    Args:
      rng: random key.
      anchors: in pixels.
      truth: ground truth of the image.
      usable: False excludes an anchor, e.g. if it crosses the border.
      coder: box coder of the deltas.
      rule: matching and sampling.

    Raises:
      ValueError: `rule.size` exceeds the number of anchors.
    """
    matching = _match(anchors, usable, truth, rule)
    sampled = sample_balanced(
        rng,
        matching.positive,
        matching.negative,
        size=rule.size,
        most_positive=rule.most_positive,
    )
    boxes = truth.boxes[matching.truth[sampled.chosen]]
    deltas = encode(boxes, anchors[sampled.chosen], coder=coder)
    return AnchorTargets(sampled.chosen, deltas, sampled.positive, sampled.valid)


def region_targets(
    rng: PRNGKeyArray,
    boxes: Float32[Array, "R 4"],
    truth: ImageTruth,
    *,
    valid: Bool[Array, "R"],
    num_classes: int,
    coder: BoxCoder,
    rule: MatchRule,
) -> SampledRegions:
    """Samples regions to train the heads on, from proposals and ground-truth boxes.

    Args:
      rng: random key.
      boxes: proposals in pixels.
      truth: ground truth of the image.
      valid: False marks padded proposals.
      num_classes: K, the label of negatives.
      coder: box coder of the deltas.
      rule: matching and sampling.

    Raises:
      ValueError: `rule.size` exceeds the number of proposals and ground-truth boxes.
    """
    # Ground-truth boxes are added as proposals that match themselves, so
    # low-quality-match rescue skips them.
    number = jnp.arange(len(truth.valid), dtype=jnp.int32)
    itself = Matching(number, truth.valid, jnp.zeros_like(truth.valid))
    matching = jax.tree.map(
        lambda *x: jnp.concatenate(x), itself, _match(boxes, valid, truth, rule)
    )
    boxes = jax.lax.stop_gradient(jnp.concatenate([truth.boxes, boxes]))
    sampled = sample_balanced(
        rng, matching.positive, matching.negative, size=rule.size,
        most_positive=rule.most_positive,
    )  # fmt: skip
    index, chosen = matching.truth[sampled.chosen], boxes[sampled.chosen]
    targets = RegionTargets(
        boxes=chosen,
        truth=index,
        labels=jnp.where(sampled.positive, truth.labels[index], num_classes),
        deltas=encode(truth.boxes[index], chosen, coder=coder),
        positive=sampled.positive,
        valid=sampled.valid,
    )
    left_out = matching.positive.sum() - sampled.positive.sum()
    is_truth = sampled.valid & (sampled.chosen < len(truth.valid))
    return SampledRegions(targets, left_out.astype(jnp.int32), is_truth)


def _match(
    boxes: Float32[Array, "A 4"],
    usable: Bool[Array, "A"],
    truth: ImageTruth,
    rule: MatchRule,
) -> Matching:
    """Matches boxes; unusable ones are never positive, negative or a best match."""
    iou = jnp.where(usable[None], box_iou(truth.boxes, boxes), 0.0)
    matching = match_by_iou(
        iou, truth.valid, positive=rule.positive, negative=rule.negative
    )
    matching = rule.rescue(matching, iou, truth.valid, least=rule.least)
    return matching._replace(
        positive=matching.positive & usable, negative=matching.negative & usable
    )
