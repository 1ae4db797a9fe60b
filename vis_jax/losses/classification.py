"""Losses on class logits."""

import jax
import jax.numpy as jnp
import optax

from vis_jax.typing import Array, Bool, Float32, Int32

FOCAL_ALPHA = 0.25
FOCAL_GAMMA = 2.0


def sigmoid_focal(
    logits: Float32[Array, "*N K"], labels: Int32[Array, "*N"]
) -> Float32[Array, "*N"]:
    """Returns the focal loss of K independent classes, summed over them.

    Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017, alpha 0.25, gamma 2.

    Args:
      logits: one per class.
      labels: 0 .. K - 1, or K for no object.
    """
    targets = jax.nn.one_hot(labels, logits.shape[-1])
    losses = optax.losses.sigmoid_focal_loss(
        logits, targets, alpha=FOCAL_ALPHA, gamma=FOCAL_GAMMA
    )
    return losses.sum(axis=-1)


def weighted_cross_entropy(
    logits: Float32[Array, "*N K1"],
    labels: Int32[Array, "*N"],
    no_object_weight: float,
    counted: Bool[Array, "*N"] | None = None,
) -> Float32[Array, ""]:
    """Returns the mean cross-entropy over K + 1 classes, no-object weighted (DETR).

    Args:
      logits: the last class is no object.
      labels: 0 .. K, K = no object.
      no_object_weight: weight of entries with label K; others have 1.
      counted: entries that are not padding; None = all. The loss is 0 without any.
    """
    losses = optax.losses.softmax_cross_entropy_with_integer_labels(logits, labels)
    weights = jnp.where(labels == logits.shape[-1] - 1, no_object_weight, 1.0)
    if counted is not None:
        weights = jnp.where(counted, weights, 0.0)
    total = weights.sum()
    return (losses * weights).sum() / jnp.where(total > 0, total, 1.0)
