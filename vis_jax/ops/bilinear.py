"""Reading maps at real coordinates, and resizing them.

Pixel i of an axis of length n covers [i, i + 1) and its centre lies at i + 0.5; a point
in [0, 1] is that position divided by n ("align_corners=False" in PyTorch).
"""

import jax
import jax.numpy as jnp

from vis_jax.typing import Array, Float, Float32, typed

# Below this many multiply-adds for one map, two small matrix products are faster than
# a gather, above all backwards, where a gather becomes a scatter.
_DENSE_LIMIT = 1 << 21


@typed
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


@typed
def sample(
    maps: Float[Array, "H W"], points: Float32[Array, "P 2"]
) -> Float[Array, "P"]:
    """Values of one map at points, bilinear, zero outside the map.

    Args:
      maps: one map.
      points: x, y in [0, 1] of the map's width and height.
    """
    height, width = maps.shape
    if points.shape[0] * height * width <= _DENSE_LIMIT:
        return sample_dense(maps, points)
    return sample_gather(maps[..., None], points)[:, 0]


@typed
def sample_dense(
    maps: Float[Array, "H W"], points: Float32[Array, "P 2"]
) -> Float[Array, "P"]:
    """As `sample`, by weights of every row and column: for small maps."""
    height, width = maps.shape
    rows = hat_weights(points[:, 1] * height - 0.5, height).astype(maps.dtype)
    columns = hat_weights(points[:, 0] * width - 0.5, width).astype(maps.dtype)
    # Some devices shorten the factors of a product unless told not to.
    across = jnp.matmul(rows, maps, precision=jax.lax.Precision.HIGHEST)
    return jnp.sum(across * columns, axis=-1)


@typed
def sample_gather(
    maps: Float[Array, "H W C"], points: Float32[Array, "P 2"]
) -> Float[Array, "P C"]:
    """As `sample`, for maps with channels, by reading the four neighbours."""
    height, width, channels = maps.shape
    x = points[:, 0] * width - 0.5
    y = points[:, 1] * height - 0.5
    x0, y0 = jnp.floor(x), jnp.floor(y)
    flat = maps.reshape(height * width, channels)
    total = jnp.zeros((points.shape[0], channels), maps.dtype)
    for dy in (0, 1):
        for dx in (0, 1):
            xi, yi = x0 + dx, y0 + dy
            weight = (1 - jnp.abs(x - xi)) * (1 - jnp.abs(y - yi))
            inside = (xi >= 0) & (xi < width) & (yi >= 0) & (yi < height)
            index = jnp.where(inside, yi * width + xi, 0).astype(jnp.int32)
            weight = jnp.where(inside, weight, 0.0).astype(maps.dtype)
            total += weight[:, None] * jnp.take(flat, index, axis=0)
    return total


@typed
def hat_weights(
    positions: Float32[Array, "P"], length: int
) -> Float32[Array, "P {length}"]:
    """Weight of each pixel of an axis in a bilinear reading.

    Args:
      positions: where to read, in pixels; 0 is the centre of the first pixel.
      length: number of pixels.
    """
    pixels = jnp.arange(length, dtype=jnp.float32)
    return jnp.maximum(1.0 - jnp.abs(positions[:, None] - pixels[None]), 0.0)
