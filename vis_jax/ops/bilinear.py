"""Samples maps at real coordinates, and resizes them.

Pixel i of an axis of length n covers [i, i + 1) and its centre lies at i + 0.5; a point
in [0, 1] is that position divided by n ("align_corners=False" in PyTorch).
"""

import jax
import jax.numpy as jnp
import numpy as np

from vis_jax.typing import Array, Float, Float32, Shaped


def linear_weights(
    at: Float32[Array, "*lead"], length: int
) -> Float32[Array, "*lead length"]:
    """Returns the linear interpolation weight of every cell of an axis at positions.

    Args:
      at: in cells; the centre of cell i is at i. Beyond the outermost centres weights
        fall to 0, unless `at` is clipped first.
      length: cells of the axis.
    """
    cells = jnp.arange(length, dtype=jnp.float32).reshape((1,) * at.ndim + (length,))
    return jnp.maximum(1.0 - jnp.abs(at[..., None] - cells), 0.0)


def fixed_weights(at: np.ndarray, length: int) -> np.ndarray:
    """Same as `linear_weights` for static positions: float64 [P, length]."""
    return np.maximum(1.0 - np.abs(at[:, None] - np.arange(length)), 0.0)


def resize(
    x: Float[Array, "*lead H W C"], size: tuple[int, int]
) -> Float[Array, "*lead _ _ C"]:
    """Resizes bilinearly: half-pixel centres, clamped edges, no antialiasing.

    Args:
      x: maps; the last three axes are height, width, channels.
      size: new height and width in pixels.

    Returns:
      The resized maps, in the dtype of `x`.
    """
    shape = (*x.shape[:-3], *size, x.shape[-1])
    return jax.image.resize(x, shape, method="bilinear", antialias=False)


def resize_corners(
    x: Float[Array, "*lead H W C"], size: tuple[int, int]
) -> Float[Array, "*lead _ _ C"]:
    """Resizes bilinearly, aligning the outermost pixel centres.

    "align_corners=True" in PyTorch, as in the semantic branch of Hybrid Task Cascade.

    Args:
      x: maps; the last three axes are height, width, channels.
      size: new height and width in pixels; a size of 1 takes the first pixel.

    Returns:
      The resized maps, in the dtype of `x`.
    """
    rows, columns = map(_corner_weights, x.shape[-3:-1], size)
    weights = (jnp.asarray(w, x.dtype) for w in (rows, columns))
    return jnp.einsum(
        "...hwc,yh,xw->...yxc", x, *weights, precision=jax.lax.Precision.HIGHEST
    )


def _corner_weights(length: int, size: int) -> Float32[np.ndarray, "size length"]:
    """Returns the weight of every pixel of an axis in every new pixel."""
    return fixed_weights(np.linspace(0.0, length - 1.0, size), length).astype(
        np.float32
    )


def resize_nearest(
    x: Shaped[Array, "*lead H W C"], size: tuple[int, int]
) -> Shaped[Array, "*lead _ _ C"]:
    """Resizes by nearest neighbour: new pixel i is pixel floor(i H / size) of the map.

    The rule of PyTorch's and OpenCV's "nearest", which reduces a label map to its
    pixels 0, 8, 16, ..

    Args:
      x: maps; the last three axes are height, width, channels.
      size: new height and width in pixels.
    """
    rows, columns = (
        np.arange(n) * length // n
        for n, length in zip(size, x.shape[-3:-1], strict=True)
    )
    return jnp.take(jnp.take(x, rows, axis=-3), columns, axis=-2)


def sample(
    maps: Float[Array, "H W"], points: Float32[Array, "P 2"]
) -> Float[Array, "P"]:
    """Samples one map at points, bilinearly, zero outside the map.

    Args:
      maps: one map.
      points: x, y in [0, 1] of the map's width and height.
    """
    return sample_channels(maps[..., None], points)[:, 0]


def sample_channels(
    maps: Float[Array, "H W C"], points: Float32[Array, "P 2"]
) -> Float[Array, "P C"]:
    """Same as `sample`, for maps with channels, by gathering the four neighbours."""
    height, width = maps.shape[:2]
    x = points[:, 0] * width - 0.5
    y = points[:, 1] * height - 0.5
    return sample_pixels(maps, y, x)


def sample_pixels(
    maps: Float[Array, "H W C"], y: Float32[Array, "P"], x: Float32[Array, "P"]
) -> Float[Array, "P C"]:
    """Same as `sample_channels`, at pixel positions: the first centre is at 0, 0."""
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


def aligned_upsample(
    x: Float[Array, "*lead H W C"], factor: int
) -> Float[Array, "*lead _ _ C"]:
    """Upsamples bilinearly: output pixel i samples at (i - factor // 2) / factor.

    Edge pixels are repeated beyond the map. Source: `aligned_bilinear` of AdelaiDet
    (Tian et al., "Conditional Convolutions for Instance Segmentation", ECCV 2020).

    Args:
      x: maps; the last three axes are height, width, channels.
      factor: at least 1; 1 returns the map itself.

    Returns:
      Maps `factor` times as high and wide, in the dtype of `x`.
    """
    return _lengthen(_lengthen(x, factor, -3), factor, -2)


def _lengthen(
    x: Float[Array, "*lead H W C"], factor: int, axis: int
) -> Float[Array, "*lead _ _ C"]:
    """Upsamples along one axis."""
    x = jnp.moveaxis(x, axis, 0)
    following = jnp.concatenate([x[1:], x[-1:]])
    share = jnp.arange(factor, dtype=x.dtype) / factor
    share = share.reshape(1, factor, *(1,) * (x.ndim - 1))
    # Avoids a gather, whose gradient would be a scatter: the samples between two pixels
    # are `factor` weighted sums of neighbours, ..
    fine = x[:, None] * (1 - share) + following[:, None] * share
    fine = fine.reshape(-1, *x.shape[1:])
    # .. then shift up by half a pixel of the map.
    first = jnp.repeat(fine[:1], factor // 2, axis=0)
    fine = jnp.concatenate([first, fine[: len(fine) - factor // 2]])
    return jnp.moveaxis(fine, 0, axis)
