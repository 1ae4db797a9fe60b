"""Losses of our Mask R-CNN on the stored cases of torchvision and detectron2.

The stored runs took every anchor and region.
"""

import functools
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from tests.compiled import RUNS_LONG
from tests.golden import mask_rcnn, mask_rcnn_detectron2
from tests.golden.cases import Case
from tests.golden.norms import BatchStatistics
from vis_jax.detectors.mask_head import of_label
from vis_jax.detectors.mask_rcnn import MASK_SIDE, MaskRCNN
from vis_jax.detectors.rcnn_losses import mask_losses, sample_regions
from vis_jax.detectors.rcnn_targets import ImageTruth, MatchRule, anchor_targets
from vis_jax.losses.rcnn import (
    RCNNLosses,
    mask_loss,
    proposal_losses,
    region_losses,
)
from vis_jax.ops.box_matching import add_best
from vis_jax.ops.masks import crop_masks

KEY = jax.random.key(0)  # has no effect, as everything is sampled
FEW = 16  # positive regions of an image, as many as most cases have at most


class Objective(NamedTuple):
    """Conventions of one library's losses.

    Attributes:
      beta: of the smooth L1 losses.
      soft_masks: mask targets are fractions, not binarised at 0.5.
      sampled: number of anchors per image that the loss is divided by; 0 = all.
    """

    beta: float
    soft_masks: bool
    sampled: float


TORCHVISION = Objective(1 / 9, True, 0.0)
DETECTRON2 = Objective(0.0, False, 1e6)


def nearest(mask: np.ndarray, size: np.ndarray) -> np.ndarray:
    """A mask [M, H, W] resized as by PyTorch, with the float32 scale it has."""
    rows, columns = (
        np.minimum(
            np.float32(np.arange(new)) * np.float32(np.float32(old) / np.float32(new)),
            old - 1,
        ).astype(int)
        for new, old in zip(size, mask.shape[1:], strict=True)
    )
    return mask[:, rows][:, :, columns]


def truth_of_case(
    case: Case, sizes: np.ndarray, *, first_label: int
) -> tuple[ImageTruth, np.ndarray]:
    """Boxes in pixels of the canvas, labels from 0, and masks, padded to one number.

    Args:
      sizes: of the images as the model sees them.
      first_label: of the stored labels.
    """
    most = max(len(case.arrays[f"targets/{i}/labels"]) for i in range(len(sizes)))
    boxes = np.zeros((len(sizes), most, 4), np.float32)
    labels, valid = np.zeros(boxes.shape[:2], np.int32), np.zeros(boxes.shape[:2], bool)
    masks = np.zeros((*labels.shape, *mask_rcnn.canvas_of(sizes)), bool)
    for i, size in enumerate(sizes):
        stored = {
            x: case.arrays[f"targets/{i}/{x}"] for x in ("boxes", "labels", "masks")
        }
        original = stored["masks"].shape[1:]
        scale = np.divide(size[::-1], original[::-1], dtype=np.float32)
        count = len(stored["labels"])
        boxes[i, :count] = stored["boxes"] * np.tile(scale, 2)
        labels[i, :count] = stored["labels"] - first_label
        masks[i, :count, : size[0], : size[1]] = nearest(stored["masks"], size) > 0
        valid[i, :count] = True
    return ImageTruth(boxes, labels, valid), masks


@functools.partial(jax.jit, static_argnums=0)
def features_of_batch(model: MaskRCNN, variables, images):
    """Features 'res2' .. 'res5' with the statistics of the batch."""
    with nn.intercept_methods(BatchStatistics()):
        return model.apply(variables, method=lambda self: self.backbone(images))


@functools.partial(jax.jit, static_argnums=0)
def features_of(model: MaskRCNN, variables, images):
    """Features 'res2' .. 'res5'."""
    return model.apply(variables, method=lambda self: self.backbone(images))


def rpn_losses(
    model: MaskRCNN, variables, features, sizes, truth, objective: Objective
):
    """The two losses of the region proposal network, and its proposals."""
    out, proposals = model.apply(variables, features, sizes, method="propose")
    anchors = model.anchors(features)
    count = anchors.shape[0]
    rule = MatchRule(0.7, 0.3, add_best, 0.0, size=count, most_positive=count)

    def one(truth):
        return anchor_targets(
            KEY,
            anchors,
            truth,
            usable=jnp.ones(count, bool),
            coder=model.rules.proposal_coder,
            rule=rule,
        )

    targets = jax.vmap(one)(truth)
    losses = proposal_losses(
        jnp.take_along_axis(out.objectness_logits, targets.chosen, axis=1),
        jnp.take_along_axis(out.deltas, targets.chosen[..., None], axis=1),
        targets.deltas,
        positive=targets.positive,
        valid=targets.valid,
        beta=objective.beta,
    )
    if objective.sampled:
        count = targets.valid.sum().astype(jnp.float32)
        share = count / (objective.sampled * len(sizes))
        losses = jax.tree.map(lambda loss: loss * share, losses)
    return losses, proposals


def targets_of(model: MaskRCNN, proposals, truth):
    """All regions of each image with what they are trained towards."""
    size = model.rules.proposals.size + truth.valid.shape[1]
    rule = MatchRule(0.5, 0.5, add_best, 2.0, size=size, most_positive=size)
    found = sample_regions(
        KEY,
        proposals.boxes,
        truth,
        valid=proposals.valid,
        num_classes=model.box_head.num_classes,
        coder=model.rules.roi_coder,
        rule=rule,
    )
    return found.targets


def loss_of_masks(
    model: MaskRCNN, variables, features, regions, masks, objective: Objective
):
    """The loss of the mask head on regions with all that are positive."""
    logits = model.apply(variables, features, regions.boxes, method="masks")
    if not objective.soft_masks:
        return mask_losses(logits, regions, masks)
    crop = functools.partial(
        crop_masks, side=2 * MASK_SIDE, convention=model.rules.roi_convention
    )
    wanted = jax.vmap(crop)(masks, regions.boxes, regions.truth)
    chosen = jax.vmap(of_label)(logits, regions.labels)
    return mask_loss(chosen, wanted, regions.positive)


class Trained(NamedTuple):
    """The gradient of the sum of all losses, and the losses.

    Attributes:
      gradient: with respect to the parameters after the backbone.
      rpn, heads, masks: losses of proposals, of regions and of masks.
      positives: the most regions of an image that are positive.
    """

    gradient: dict
    rpn: RCNNLosses
    heads: RCNNLosses
    masks: jax.Array
    positives: jax.Array


def gradient_and_losses(model: MaskRCNN, objective: Objective, *inputs) -> Trained:
    """Returns the losses and gradients after the backbone.

    Args:
      inputs: variables, features of the backbone, sizes, truth and masks.
    """
    found = jax.device_get(_trained(model, objective, FEW, *inputs))
    if found.positives > FEW:
        most = int(found.positives)
        found = jax.device_get(_trained(model, objective, most, *inputs))
    return found


@functools.partial(jax.jit, static_argnums=(0, 1, 2), compiler_options=RUNS_LONG)
def _trained(
    model: MaskRCNN,
    objective: Objective,
    most: int,
    variables,
    backbone,
    sizes,
    truth,
    masks,
) -> Trained:
    """The mask head sees the first `most` regions: the positive ones, which come first.

    No other has a loss of masks.
    """

    def losses_of(params):
        now = {**variables, "params": params}
        levels = model.apply(now, method=lambda self: self.fpn(backbone))
        features = tuple(levels[name] for name in sorted(levels))
        rpn, proposals = rpn_losses(model, now, features, sizes, truth, objective)
        regions = targets_of(model, proposals, truth)
        out = model.apply(now, features, regions.boxes, method="classify")
        heads = region_losses(
            *out,
            regions.deltas,
            labels=regions.labels,
            valid=regions.valid,
            beta=objective.beta,
        )
        positives = regions.positive.sum(axis=1).max()
        regions = jax.tree.map(lambda x: x[:, :most], regions)
        of_masks = loss_of_masks(model, now, features, regions, masks, objective)
        total = sum((*rpn, *heads, of_masks))
        return total, (rpn, heads, of_masks, positives)

    gradient, others = jax.grad(losses_of, has_aux=True)(variables["params"])
    return Trained(gradient, *others)


def compare_torchvision(case: Case) -> dict[str, np.ndarray]:
    """torchvision's losses and gradients as we compute them.

    The stored run normalised by the statistics of its images.
    """
    images, sizes = mask_rcnn.inputs_of_case(case)
    model = mask_rcnn.model_of_case(case, sizes)
    variables = mask_rcnn.converted(case, model, "mask_rcnn_torchvision")
    truth, masks = truth_of_case(case, sizes, first_label=1)
    backbone = features_of_batch(model, variables, images)
    gradient, rpn, heads, of_masks, _ = gradient_and_losses(
        model, TORCHVISION, variables, backbone, sizes, truth, masks
    )
    box, mask = gradient["box_head"], gradient["mask_head"]
    return {
        "loss/loss_objectness": rpn.classes,
        "loss/loss_rpn_box_reg": rpn.boxes,
        "loss/loss_classifier": heads.classes,
        "loss/loss_box_reg": heads.boxes,
        "loss/loss_mask": of_masks,
        "grad/rpn.head.cls_logits.bias": gradient["rpn"]["objectness"]["bias"],
        "grad/rpn.head.bbox_pred.bias": gradient["rpn"]["deltas"]["bias"],
        # Their background comes first, and its masks are never used.
        "grad/roi_heads.box_predictor.cls_score.bias": np.roll(
            box["class_logits"]["bias"], 1
        ),
        "grad/roi_heads.mask_predictor.mask_fcn_logits.bias": np.append(
            np.float32(0), mask["mask_logits"]["bias"]
        ),
        "grad/backbone.fpn.inner_blocks.0.0.bias": gradient["fpn"]["lateral2"]["bias"],
    }


def compare_detectron2(case: Case) -> dict[str, np.ndarray]:
    """detectron2's losses and gradients as we compute them."""
    images, sizes = mask_rcnn_detectron2.inputs_of_case(case)
    model = mask_rcnn_detectron2.model_of_case(case, images.shape[1:3])
    variables = mask_rcnn.converted(case, model, mask_rcnn_detectron2.KIND)
    truth, masks = truth_of_case(case, sizes, first_label=0)
    backbone = features_of(model, variables, images)
    gradient, rpn, heads, of_masks, _ = gradient_and_losses(
        model, DETECTRON2, variables, backbone, sizes, truth, masks
    )
    box, mask = gradient["box_head"], gradient["mask_head"]
    rpn_head, roi_heads = "grad/proposal_generator.rpn_head", "grad/roi_heads"
    return {
        "loss/loss_rpn_cls": rpn.classes,
        "loss/loss_rpn_loc": rpn.boxes,
        "loss/loss_cls": heads.classes,
        "loss/loss_box_reg": heads.boxes,
        "loss/loss_mask": of_masks,
        f"{rpn_head}.objectness_logits.bias": gradient["rpn"]["objectness"]["bias"],
        f"{rpn_head}.anchor_deltas.bias": gradient["rpn"]["deltas"]["bias"],
        f"{roi_heads}.box_predictor.cls_score.bias": box["class_logits"]["bias"],
        f"{roi_heads}.mask_head.predictor.bias": mask["mask_logits"]["bias"],
        "grad/backbone.fpn_lateral2.bias": gradient["fpn"]["lateral2"]["bias"],
    }
