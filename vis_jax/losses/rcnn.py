"""Losses of Faster and Mask R-CNN on a fixed number of samples.

Girshick, "Fast R-CNN", ICCV 2015, section 2.3; He et al., "Mask R-CNN", ICCV 2017. Sums
over the samples of all images are divided by the number of samples, as in torchvision
and mmdetection. Letters: S samples.
"""

from typing import NamedTuple

import jax.numpy as jnp
import optax

from vis_jax.typing import Array, Bool, Float32, Int32


class RCNNLosses(NamedTuple):
    """Class and box losses of proposals or regions."""

    classes: Float32[Array, ""]
    boxes: Float32[Array, ""]


def smooth_l1(
    values: Float32[Array, "*lead 4"], targets: Float32[Array, "*lead 4"], beta: float
) -> Float32[Array, "*lead"]:
    """Returns the Huber loss divided by beta, summed over the four deltas.

    Args:
      beta: transition from quadratic to linear; 0 is the L1 loss.
    """
    if beta == 0:
        return jnp.abs(values - targets).sum(axis=-1)
    return optax.losses.huber_loss(values, targets, delta=beta).sum(axis=-1) / beta


def proposal_losses(
    objectness_logits: Float32[Array, "*lead S"],
    deltas: Float32[Array, "*lead S 4"],
    targets: Float32[Array, "*lead S 4"],
    *,
    positive: Bool[Array, "*lead S"],
    valid: Bool[Array, "*lead S"],
    beta: float,
) -> RCNNLosses:
    """Returns the losses of the region proposal network on sampled anchors.

    Args:
      targets: deltas from an anchor to its ground truth; used where positive.
      positive: anchors matched to a ground-truth box; others are negative.
      valid: False marks padding.
      beta: beta of the smooth L1 loss: 0 in detectron2, else 1 / 9.
    """
    losses = optax.losses.sigmoid_binary_cross_entropy(
        objectness_logits, positive.astype(jnp.float32)
    )
    count = jnp.maximum(valid.sum(), 1).astype(jnp.float32)
    return RCNNLosses(
        _sum_where(losses, valid) / count,
        _sum_where(smooth_l1(deltas, targets, beta), positive & valid) / count,
    )


def region_losses(
    class_logits: Float32[Array, "*lead S K1"],
    deltas: Float32[Array, "*lead S _ 4"],
    targets: Float32[Array, "*lead S 4"],
    *,
    labels: Int32[Array, "*lead S"],
    valid: Bool[Array, "*lead S"],
    beta: float,
) -> RCNNLosses:
    """Returns the losses of the box head on sampled regions.

    Args:
      class_logits: the last class is background.
      deltas: per class, of which only the label's count; or class-agnostic.
      targets: deltas from a region to its ground truth; used where the label is a
        class.
      labels: 0 .. K, K = background.
      valid: False marks padding.
      beta: beta of the smooth L1 loss: 0 in detectron2, 1 / 9 in torchvision, 1 in
        mmdetection.
    """
    losses = optax.losses.softmax_cross_entropy_with_integer_labels(
        class_logits, labels
    )
    index = jnp.minimum(labels, deltas.shape[-2] - 1)[..., None, None]
    chosen = jnp.take_along_axis(deltas, index, axis=-2).squeeze(-2)
    count = jnp.maximum(valid.sum(), 1).astype(jnp.float32)
    found = valid & (labels < class_logits.shape[-1] - 1)
    return RCNNLosses(
        _sum_where(losses, valid) / count,
        _sum_where(smooth_l1(chosen, targets, beta), found) / count,
    )


def mask_loss(
    mask_logits: Float32[Array, "*lead S h w"],
    targets: Float32[Array, "*lead S h w"],
    valid: Bool[Array, "*lead S"],
) -> Float32[Array, ""]:
    """Returns the mean binary cross-entropy over the cells of valid regions; 0 if none.

    Args:
      mask_logits: for the class of each region.
      targets: share of the ground-truth mask in each cell, in [0, 1].
      valid: positive regions that are not padding.
    """
    losses = optax.losses.sigmoid_binary_cross_entropy(mask_logits, targets)
    count = jnp.maximum(valid.sum(), 1).astype(jnp.float32)
    return _sum_where(losses.mean(axis=(-2, -1)), valid) / count


def _sum_where(
    losses: Float32[Array, "*lead"], valid: Bool[Array, "*lead"]
) -> Float32[Array, ""]:
    return jnp.where(valid, losses, 0.0).sum()
