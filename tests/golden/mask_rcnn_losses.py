"""Losses of our Mask R-CNN on the stored case of torchvision.

The stored run took every anchor and region, and normalised by the statistics of its
two images.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from tests.golden.cases import Case
from tests.golden.conventions import add_best
from tests.golden.mask_rcnn import converted, inputs_of_case
from vis_jax.detectors.mask_head import of_label
from vis_jax.detectors.mask_rcnn import MASK_SIDE, MaskRCNN
from vis_jax.detectors.rcnn_losses import sample_regions
from vis_jax.detectors.rcnn_targets import (
    MatchRule,
    Truth,
    anchor_targets,
)
from vis_jax.layers.norm import FrozenBatchNorm
from vis_jax.losses.rcnn import mask_loss, proposal_losses, region_losses
from vis_jax.ops.masks import crop_masks

BETA = 1 / 9
KEY = jax.random.key(0)  # everything is chosen, whatever the key
POSITIVES = 8  # of an image, at most


def truth_of_case(case: Case) -> tuple[Truth, np.ndarray]:
    """Boxes in pixels of the resized images, labels from 0, and the masks."""
    _, sizes = inputs_of_case(case)
    boxes, labels, masks = [], [], []
    for i, size in enumerate(sizes):
        original = case.arrays[f"image/{i}"].shape[1:]
        scale = np.tile((size / original)[::-1], 2)
        boxes.append((case.arrays[f"targets/{i}/boxes"] * scale).astype(np.float32))
        labels.append(case.arrays[f"targets/{i}/labels"] - 1)
        # Nearest neighbours, then the padding of the canvas.
        rows, columns = (
            np.arange(new) * old // new for new, old in zip(size, original, strict=True)
        )
        mask = case.arrays[f"targets/{i}/masks"][:, rows][:, :, columns] > 0
        masks.append(np.zeros((len(mask), 96, 160), bool))
        masks[-1][:, : size[0], : size[1]] = mask
    valid = np.ones((2, len(labels[0])), bool)
    truth = Truth(np.stack(boxes), np.stack(labels).astype(np.int32), valid)
    return truth, np.stack(masks)


def batch_statistics(call, args, kwargs, context):
    """Interceptor: normalises by the statistics of the batch."""
    if not isinstance(context.module, FrozenBatchNorm):
        return call(*args, **kwargs)
    (x,) = args
    scale = context.module.get_variable("constants", "scale")
    bias = context.module.get_variable("constants", "bias")
    mean = x.mean(axis=(0, 1, 2), keepdims=True)
    var = x.var(axis=(0, 1, 2), keepdims=True)
    x = (x - mean) * jax.lax.rsqrt(var + 1e-5)
    return x * scale.reshape(1, 1, 1, -1) + bias.reshape(1, 1, 1, -1)


@functools.partial(jax.jit, static_argnums=0)
def backbone_features(model: MaskRCNN, variables, images):
    """Features 'res2' .. 'res5' with the statistics of the batch."""
    with nn.intercept_methods(batch_statistics):
        return model.apply(variables, method=lambda self: self.backbone(images))


def rpn_losses(model: MaskRCNN, variables, features, sizes, truth):
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
        beta=BETA,
    )
    return losses, proposals


def targets_of(model: MaskRCNN, proposals, truth):
    """All regions of each image with what they are trained towards."""
    size = model.rules.proposals.size + truth.valid.shape[1]
    rule = MatchRule(0.5, 0.5, add_best, 2.0, size=size, most_positive=size)

    return sample_regions(
        KEY,
        proposals,
        truth,
        num_classes=model.box_head.num_classes,
        coder=model.rules.roi_coder,
        rule=rule,
    )


def mask_losses(model: MaskRCNN, variables, features, targets, masks):
    """The loss of the mask head on positive regions, which come first."""
    positives = jax.tree.map(lambda x: x[:, :POSITIVES], targets)
    logits = model.apply(variables, features, positives.boxes, method="masks")
    crop = functools.partial(
        crop_masks, side=2 * MASK_SIDE, convention=model.rules.roi_convention
    )
    wanted = jax.vmap(crop)(masks, positives.boxes, positives.truth)
    chosen = jax.vmap(of_label)(logits, positives.labels)
    return mask_loss(chosen, wanted, positives.positive)


@functools.partial(jax.jit, static_argnums=0)
def gradient_and_losses(model: MaskRCNN, variables, backbone, sizes, truth, masks):
    """Gradient of the sum of the losses after the backbone, and each loss."""

    def losses_of(params):
        now = {**variables, "params": params}
        levels = model.apply(now, method=lambda self: self.fpn(backbone))
        features = tuple(levels[name] for name in sorted(levels))
        rpn, proposals = rpn_losses(model, now, features, sizes, truth)
        regions = targets_of(model, proposals, truth)
        out = model.apply(now, features, regions.boxes, method="classify")
        heads = region_losses(
            *out, regions.deltas, labels=regions.labels, valid=regions.valid, beta=BETA
        )
        losses = {
            "loss/loss_objectness": rpn.classes,
            "loss/loss_rpn_box_reg": rpn.boxes,
            "loss/loss_classifier": heads.classes,
            "loss/loss_box_reg": heads.boxes,
            "loss/loss_mask": mask_losses(model, now, features, regions, masks),
        }
        return sum(losses.values()), (losses, regions.positive.sum(axis=1))

    return jax.grad(losses_of, has_aux=True)(variables["params"])


def compare_losses(case: Case) -> dict[str, np.ndarray]:
    """The stored losses and gradients as we compute them."""
    model, variables = converted(case)
    images, sizes = inputs_of_case(case)
    truth, masks = truth_of_case(case)
    backbone = backbone_features(model, variables, images)
    found = gradient_and_losses(model, variables, backbone, sizes, truth, masks)
    gradient, (losses, positives) = jax.device_get(found)
    if not 0 < positives.max() <= POSITIVES:
        raise ValueError(f"expected up to {POSITIVES} positives, got {positives}")
    box, mask = gradient["box_head"], gradient["mask_head"]
    return losses | {
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
