"""The Lovász extension of the Jaccard loss: a differentiable IoU loss.

Berman, Rannen Triki and Blaschko, "The Lovász-softmax loss", CVPR 2018. Letters: P
pixels of one or several images.
"""

import jax
import jax.numpy as jnp

from vis_jax.typing import Array, Bool, Float32, Int32


def lovasz_hinge(
    logits: Float32[Array, "P"], targets: Bool[Array, "P"], valid: Bool[Array, "P"]
) -> Float32[Array, ""]:
    """Returns the loss of one binary mask, equation 11 with the hinge errors of eq. 12.

    Args:
      logits: positive = inside.
      targets: the ground-truth mask.
      valid: False ignores a pixel.
    """
    errors = 1.0 - logits * jnp.where(targets, 1.0, -1.0)
    return _lovasz(jax.nn.relu(errors), errors, targets, valid)


def lovasz_softmax(
    probs: Float32[Array, "P K"], labels: Int32[Array, "P"], valid: Bool[Array, "P"]
) -> Float32[Array, "K"]:
    """Returns the loss of every class, eq. 8; usually averaged over those present.

    Args:
      probs: probabilities of every class.
      labels: 0 .. K - 1.
      valid: False ignores a pixel.
    """
    classes = jnp.arange(probs.shape[1], dtype=labels.dtype)
    targets = labels[None] == classes[:, None]
    return jax.vmap(lovasz_class, (1, 0, None))(probs, targets, valid)


def lovasz_class(
    probs: Float32[Array, "P"], targets: Bool[Array, "P"], valid: Bool[Array, "P"]
) -> Float32[Array, ""]:
    """Returns the loss of one class of `lovasz_softmax`.

    Args:
      probs: probabilities of the class.
      targets: pixels of the class.
      valid: False ignores a pixel.
    """
    errors = jnp.abs(targets.astype(probs.dtype) - probs)
    return _lovasz(errors, errors, targets, valid)


def _lovasz(
    errors: Float32[Array, "P"],
    rank: Float32[Array, "P"],
    targets: Bool[Array, "P"],
    valid: Bool[Array, "P"],
) -> Float32[Array, ""]:
    """Sums the errors, weighted by the Jaccard loss increments, largest first.

    Args:
      errors: at least 0.
      rank: sort order of the errors, largest first.
    """
    order = jnp.argsort(jnp.where(valid, -jax.lax.stop_gradient(rank), jnp.inf))
    inside = (targets & valid)[order].astype(jnp.float32)
    total = inside.sum()
    left = total - jnp.cumsum(inside)
    union = total + jnp.cumsum(1.0 - inside)
    jaccard = 1.0 - left / union
    gains = jnp.diff(jaccard, prepend=jnp.zeros(1))
    return jnp.sum(jnp.where(valid[order], errors[order] * gains, 0.0))
