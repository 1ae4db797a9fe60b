"""Clears padded entries of arrays."""

import jax.numpy as jnp

from vis_jax.typing import Array, Bool, Shaped


def zero_padding(
    x: Shaped[Array, "*lead_and_rest"], valid: Bool[Array, "*lead"]
) -> Shaped[Array, "*lead_and_rest"]:
    """Returns an array with zeros in its padded entries.

    Args:
      x: entries along its leading axes.
      valid: one value per entry; False marks padding.
    """
    valid = valid.reshape(*valid.shape, *[1] * (x.ndim - valid.ndim))
    return jnp.where(valid, x, jnp.zeros_like(x))
