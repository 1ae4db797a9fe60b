"""Losses of Mask R-CNN: its heads on sampled anchors and regions.

Ren et al., "Faster R-CNN", NeurIPS 2015; He et al., "Mask R-CNN", ICCV 2017. Letters: B
images, S sampled regions, M ground-truth objects.
"""

import functools

import jax
import jax.numpy as jnp

from vis_jax.detectors.mask_head import of_label
from vis_jax.detectors.mask_rcnn import MASK_SIDE
from vis_jax.detectors.rcnn_targets import (
    AnchorTargets,
    ImageTruth,
    MatchRule,
    RegionTargets,
    SampledRegions,
    anchor_targets,
    region_targets,
)
from vis_jax.detectors.rpn import RPNOutput
from vis_jax.losses.rcnn import RCNNLosses, mask_loss, proposal_losses
from vis_jax.ops.anchors import inside
from vis_jax.ops.box_coder import BoxCoder
from vis_jax.ops.masks import crop_masks
from vis_jax.ops.roi_align import ALIGNED
from vis_jax.typing import Array, Bool, Float32, Int32, PRNGKeyArray

_BETA = 1 / 9  # for the smooth L1 loss of proposals, in all source libraries


def rpn_losses(
    rng: PRNGKeyArray,
    out: RPNOutput,
    truth: ImageTruth,
    *,
    anchors: Float32[Array, "A 4"],
    sizes: Int32[Array, "B 2"],
    coder: BoxCoder,
    rule: MatchRule,
    beta: float = _BETA,
) -> RCNNLosses:
    """Returns the losses of the region proposal network on anchors inside the images.

    Args:
      rng: key for sampling anchors.
      out: network output for B images.
      truth: ground truth of each image, leading axis B.
      anchors: anchors of all levels, in pixels.
      sizes: height and width of each image's content in pixels.
      coder: box coder of the deltas.
      rule: matching and sampling of anchors.
      beta: beta of the smooth L1 loss; 0 is the L1 loss.

    Raises:
      ValueError: the rule samples more anchors than there are.
    """
    if rule.size > len(anchors):
        raise ValueError(
            f"model.rpn.sampled: expected at most {len(anchors)}, the anchors of a"
            f" frame, got {rule.size}"
        )

    def one(
        key: PRNGKeyArray, truth: ImageTruth, size: Int32[Array, "2"]
    ) -> AnchorTargets:
        usable = inside(anchors, size)
        return anchor_targets(
            key, anchors, truth, usable=usable, coder=coder, rule=rule
        )

    keys = jax.random.split(rng, len(sizes))
    targets = jax.vmap(one)(keys, truth, sizes)
    return proposal_losses(
        jnp.take_along_axis(out.objectness_logits, targets.chosen, axis=1),
        jnp.take_along_axis(out.deltas, targets.chosen[..., None], axis=1),
        targets.deltas,
        positive=targets.positive,
        valid=targets.valid,
        beta=beta,
    )


def sample_regions(
    rng: PRNGKeyArray,
    boxes: Float32[Array, "B R 4"],
    truth: ImageTruth,
    *,
    valid: Bool[Array, "B R"],
    num_classes: int,
    coder: BoxCoder,
    rule: MatchRule,
) -> SampledRegions:
    """Samples regions of B images to train the heads on; see `region_targets`."""
    one = functools.partial(
        region_targets, num_classes=num_classes, coder=coder, rule=rule
    )

    def sample(
        key: PRNGKeyArray,
        boxes: Float32[Array, "R 4"],
        valid: Bool[Array, "R"],
        truth: ImageTruth,
    ) -> SampledRegions:
        return one(key, boxes, truth, valid=valid)

    keys = jax.random.split(rng, len(valid))
    return jax.vmap(sample)(keys, boxes, valid, truth)


def positives_of(regions: RegionTargets, rule: MatchRule) -> RegionTargets:
    """Returns the samples that may be positive, which come first."""
    return jax.tree.map(lambda x: x[:, : rule.most_positive], regions)


def mask_losses(
    mask_logits: Float32[Array, "B S h w K"],
    positives: RegionTargets,
    masks: Bool[Array, "B M H W"],
) -> Float32[Array, ""]:
    """Returns the loss of the mask head on positive regions.

    A cell is inside if at least half of it is. Deviation: mmdetection samples the mask
    at one point per cell, in boxes truncated to whole pixels.

    Mask targets always use half-pixel-aligned sampling, whatever the RoIAlign
    convention, to match mask pasting at test time.

    Args:
      mask_logits: mask logits of the regions.
      positives: leading axes B, S.
      masks: masks of the ground-truth objects, in pixels.
    """
    crop = functools.partial(crop_masks, side=2 * MASK_SIDE, convention=ALIGNED)
    share = jax.vmap(crop)(masks, positives.boxes, positives.truth)
    wanted = (share >= 0.5).astype(jnp.float32)
    chosen = jax.vmap(of_label)(mask_logits, positives.labels)
    return mask_loss(chosen, wanted, positives.positive & positives.valid)
