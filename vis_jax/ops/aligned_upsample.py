"""Upsampling by a whole factor as CondInst does it, half a pixel off the usual one."""

import jax.numpy as jnp

from vis_jax.typing import Array, Float


def aligned_upsample(
    x: Float[Array, "*lead H W C"], factor: int
) -> Float[Array, "*lead _ _ C"]:
    """Bilinear upsampling: pixel i of the result is read at (i - factor // 2) / factor.

    Beyond the first and the last pixel of the map their values are repeated. Source:
    `aligned_bilinear` of AdelaiDet (Tian et al., "Conditional Convolutions for Instance
    Segmentation", ECCV 2020).

    Args:
      x: maps; the last three axes are height, width, channels.
      factor: at least 1; 1 gives the map itself.

    Returns:
      Maps `factor` times as high and wide, in the dtype of `x`.
    """
    return _lengthen(_lengthen(x, factor, -3), factor, -2)


def _lengthen(
    x: Float[Array, "*lead H W C"], factor: int, axis: int
) -> Float[Array, "*lead _ _ C"]:
    """The same along one axis."""
    x = jnp.moveaxis(x, axis, 0)
    following = jnp.concatenate([x[1:], x[-1:]])
    share = jnp.arange(factor, dtype=x.dtype) / factor
    share = share.reshape(1, factor, *(1,) * (x.ndim - 1))
    # No gather, whose gradient would be a scatter: the points between two pixels are
    # `factor` weighted sums of neighbours, ..
    fine = x[:, None] * (1 - share) + following[:, None] * share
    fine = fine.reshape(-1, *x.shape[1:])
    # .. and all of them move up by half a pixel of the map.
    first = jnp.repeat(fine[:1], factor // 2, axis=0)
    fine = jnp.concatenate([first, fine[: len(fine) - factor // 2]])
    return jnp.moveaxis(fine, 0, axis)
