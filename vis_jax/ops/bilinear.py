"""Reading maps at real coordinates, and resizing them.

Pixel i of an axis of length n covers [i, i + 1) and its centre lies at i + 0.5; a point
in [0, 1] is that position divided by n ("align_corners=False" in PyTorch).
"""

import jax
import jax.numpy as jnp

from vis_jax.typing import Array, Float, Float32


def resize(
    x: Float[Array, "*lead H W C"], size: tuple[int, int]
) -> Float[Array, "*lead _ _ C"]:
    """Bilinear resize with half-pixel centres, clamped edges and no antialiasing.

    Args:
      x: maps; the last three axes are height, width, channels.
      size: new height and width in pixels.

    Returns:
      The resized maps, in the dtype of `x`.
    """
    shape = (*x.shape[:-3], *size, x.shape[-1])
    return jax.image.resize(x, shape, method="bilinear", antialias=False)


def sample(
    maps: Float[Array, "H W"], points: Float32[Array, "P 2"]
) -> Float[Array, "P"]:
    """Values of one map at points, bilinear, zero outside the map.

    Args:
      maps: one map.
      points: x, y in [0, 1] of the map's width and height.
    """
    return sample_channels(maps[..., None], points)[:, 0]


def sample_channels(
    maps: Float[Array, "H W C"], points: Float32[Array, "P 2"]
) -> Float[Array, "P C"]:
    """As `sample`, for maps with channels, by reading the four neighbours."""
    height, width = maps.shape[:2]
    x = points[:, 0] * width - 0.5
    y = points[:, 1] * height - 0.5
    return sample_pixels(maps, y, x)


def sample_pixels(
    maps: Float[Array, "H W C"], y: Float32[Array, "P"], x: Float32[Array, "P"]
) -> Float[Array, "P C"]:
    """As `sample_channels`, at positions in pixels: the first centre is at 0, 0."""
    height, width, channels = maps.shape
    x0, y0 = jnp.floor(x), jnp.floor(y)
    flat = maps.reshape(height * width, channels)
    total = jnp.zeros((x.shape[0], channels), maps.dtype)
    for dy in (0, 1):
        for dx in (0, 1):
            xi, yi = x0 + dx, y0 + dy
            weight = (1 - jnp.abs(x - xi)) * (1 - jnp.abs(y - yi))
            inside = (xi >= 0) & (xi < width) & (yi >= 0) & (yi < height)
            index = jnp.where(inside, yi * width + xi, 0).astype(jnp.int32)
            weight = jnp.where(inside, weight, 0.0).astype(maps.dtype)
            total += weight[:, None] * jnp.take(flat, index, axis=0)
    return total
