"""Logistic loss in which object and background weigh the same."""

import jax
import jax.numpy as jnp

from vis_jax.typing import Array, Bool, Float32


def balanced_bce(
    logits: Float32[Array, "*N"], targets: Bool[Array, "*N"], counts: Bool[Array, "*N"]
) -> Float32[Array, ""]:
    """(N- / N) sum of the losses of positives + (N+ / N) sum of those of negatives.

    N+ and N- count over everything given: pixels, objects and images together. Xie and
    Tu, "Holistically-Nested Edge Detection", ICCV 2015, Eq. 2; in the code of OSMN.

    Args:
      logits: of each pixel.
      targets: True for pixels of the object.
      counts: False marks pixels that are left out.
    """
    losses = jax.nn.softplus(jnp.where(targets, -logits, logits))
    positive, negative = counts & targets, counts & ~targets
    n_positive, n_negative = (x.sum(dtype=jnp.float32) for x in (positive, negative))
    total = jnp.maximum(n_positive + n_negative, 1.0)
    weights = jnp.where(positive, n_negative / total, 0.0)
    weights = jnp.where(negative, n_positive / total, weights)
    return (weights * losses).sum()
