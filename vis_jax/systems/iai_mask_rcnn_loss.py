"""Training of IAI on Mask R-CNN; see `systems.iai_mask_rcnn`.

Letters: B images at one time, R regions, M ground-truth objects, N identities.
"""

from typing import Any, cast

import jax
import jax.numpy as jnp
import optax

from vis_jax.detectors.mask_rcnn import Levels, MaskRCNN, TrainRules
from vis_jax.detectors.mask_rcnn_ids import IdBoxOutput
from vis_jax.detectors.rcnn_losses import (
    mask_losses,
    positives_of,
    rpn_losses,
    sample_regions,
)
from vis_jax.detectors.rcnn_targets import ImageTruth
from vis_jax.detectors.rpn import Proposals
from vis_jax.losses.rcnn import region_losses
from vis_jax.settings import Weight, section
from vis_jax.systems.iai_loss import Carry, FrameLoss, TrainingFrame
from vis_jax.typing import Array, Bool, Float32, Int32, PRNGKeyArray

_BETA = 0.0  # L1 loss of boxes, of anchors and of regions, as in mmdetection 2


@section
class LossSettings:
    """`loss`: the weight of each term."""

    rpn_class: Weight = 1.0  # objectness of anchors
    rpn_box: Weight = 1.0  # box of anchors
    box_class: Weight = 1.0  # class of regions
    id: Weight = 1.0  # identity of regions
    box: Weight = 1.0  # box of regions
    mask: Weight = 1.0  # mask of regions
    permute: bool = False  # draw the identities of a clip at random; see `systems.iai`


def look(
    model: MaskRCNN,
    rules: TrainRules,
    variables: dict,
    carry: Carry,
    frame: TrainingFrame,
) -> FrameLoss:
    """Returns the losses of Mask R-CNN with identities."""
    path_key, rpn_key, roi_key = jax.random.split(frame.key, 3)

    def apply(method, *inputs, **options) -> Any:
        return model.apply(variables, *inputs, method=method, **options)

    levels, tokens = apply(
        "pyramid", frame.features, carry.memory, True, rngs={"drop_path": path_key}
    )
    objects = frame.objects
    truth = ImageTruth(objects.boxes, objects.labels, objects.valid)
    # Padding images get size 0: no anchor lies inside, so they train nothing.
    sizes = jnp.where(frame.real[:, None], frame.sizes, 0)
    out, proposals = apply("propose", levels, frame.sizes)
    rpn = rpn_losses(
        rpn_key,
        out,
        truth,
        anchors=model.anchors(levels),
        sizes=sizes,
        coder=model.rules.proposal_coder,
        rule=rules.anchors,
        beta=_BETA,
    )
    of_regions, left_out = _region_terms(
        model, rules, variables, levels, frame, proposals, roi_key
    )
    terms = {"rpn_class": rpn.classes, "rpn_box": rpn.boxes, **of_regions}
    notes = {"positives_left_out": left_out}
    return FrameLoss(terms, notes, tokens, carry.stats)


def _region_terms(
    model: MaskRCNN,
    rules: TrainRules,
    variables: dict,
    levels: Levels,
    frame: TrainingFrame,
    proposals: Proposals,
    rng: PRNGKeyArray,
) -> tuple[dict[str, Float32[Array, ""]], Float32[Array, ""]]:
    """Returns the region losses, and the number of positives that were not sampled."""
    objects = frame.objects
    regions, left_out, _ = sample_regions(
        rng,
        proposals.boxes,
        ImageTruth(objects.boxes, objects.labels, objects.valid),
        valid=proposals.valid,
        num_classes=model.box_head.num_classes,
        coder=model.rules.roi_coder,
        rule=rules.regions,
    )
    regions = regions._replace(valid=regions.valid & frame.real[:, None])
    said = model.apply(variables, levels, regions.boxes, method="identify")
    said = cast(IdBoxOutput, said)
    heads = region_losses(
        said.boxes.class_logits,
        said.boxes.deltas,
        regions.deltas,
        labels=regions.labels,
        valid=regions.valid,
        beta=_BETA,
    )
    wanted = jnp.take_along_axis(frame.targets, regions.truth, axis=1)
    wanted = jnp.where(regions.positive, wanted, model.box_head.ids)
    positives = positives_of(regions, rules.regions)
    masks = model.apply(variables, levels, positives.boxes, method="masks")
    terms = {
        "box_class": heads.classes,
        "box": heads.boxes,
        "id": id_loss(said.id_logits, wanted, regions.valid),
        "mask": mask_losses(cast(Array, masks), positives, objects.masks),
    }
    return terms, left_out.sum().astype(jnp.float32)


def id_loss(
    logits: Float32[Array, "B R N1"],
    ids: Int32[Array, "B R"],
    valid: Bool[Array, "B R"],
) -> Float32[Array, ""]:
    """Returns the mean cross-entropy of region identities, as in the class loss.

    Args:
      logits: the last column is the background.
      ids: N for regions without an object.
      valid: False marks padding.
    """
    of_label = optax.losses.softmax_cross_entropy_with_integer_labels
    losses = jnp.where(valid, of_label(logits, ids), 0.0)
    return losses.sum() / jnp.maximum(valid.sum(), 1).astype(jnp.float32)
