"""Losses between mask logits and binary masks at sampled points.

Letters: P points. Dice follows Milletari et al., "V-Net", 2016; `point_dice` and
`pairwise_dice` take Mask2Former's form: sums, not squared sums, in the denominator, and
1 added to numerator and denominator.
"""

import jax
import jax.numpy as jnp

from vis_jax.typing import Array, Float32


def point_bce(
    logits: Float32[Array, "*N P"], targets: Float32[Array, "*N P"]
) -> Float32[Array, "*N"]:
    """Returns the logistic loss, averaged over points."""
    return jnp.mean(jax.nn.softplus(logits) - logits * targets, axis=-1)


def point_dice(
    logits: Float32[Array, "*N P"], targets: Float32[Array, "*N P"]
) -> Float32[Array, "*N"]:
    """Returns 1 - (2 sum(p g) + 1) / (sum(p) + sum(g) + 1)."""
    probs = jax.nn.sigmoid(logits)
    overlap = 2 * jnp.sum(probs * targets, axis=-1) + 1
    return 1 - overlap / (probs.sum(axis=-1) + targets.sum(axis=-1) + 1)


def squared_dice(
    logits: Float32[Array, "*N P"], targets: Float32[Array, "*N P"]
) -> Float32[Array, "*N"]:
    """Returns 1 - 2 sum(p g) / (sum(p^2) + sum(g^2) + 1e-5), as in CondInst."""
    probs = jax.nn.sigmoid(logits)
    overlap = 2 * jnp.sum(probs * targets, axis=-1)
    squares = jnp.square(probs).sum(axis=-1) + jnp.square(targets).sum(axis=-1)
    return 1 - overlap / (squares + 1e-5)


def pairwise_bce(
    logits: Float32[Array, "Q P"], targets: Float32[Array, "M P"]
) -> Float32[Array, "Q M"]:
    """Returns `point_bce` of every prediction and target, as one matrix product."""
    total = jax.nn.softplus(logits).sum(axis=-1)[:, None] - _product(logits, targets)
    return total / logits.shape[-1]


def pairwise_dice(
    logits: Float32[Array, "Q P"], targets: Float32[Array, "M P"]
) -> Float32[Array, "Q M"]:
    """Returns `point_dice` of every prediction and target, as one matrix product."""
    probs = jax.nn.sigmoid(logits)
    overlap = 2 * _product(probs, targets) + 1
    return 1 - overlap / (probs.sum(-1)[:, None] + targets.sum(-1)[None] + 1)


def _product(
    a: Float32[Array, "Q P"], b: Float32[Array, "M P"]
) -> Float32[Array, "Q M"]:
    """Returns a b^T in full float32, which some devices reduce by default."""
    return jnp.matmul(a, b.T, precision=jax.lax.Precision.HIGHEST)
