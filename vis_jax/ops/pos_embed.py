"""Sine position embeddings over space and time (Mask2Former, DETR)."""

import math

import jax.numpy as jnp
import numpy as np

from vis_jax.typing import Array, Float32

_EPSILON = 1e-6  # in the normalisation, as in DETR
_TEMPERATURE = 10_000.0


def sine_1d(
    length: int,
    dim: int,
    extent: Float32[Array, "*B"] | float | None = None,
    *,
    first: int = 1,
) -> Float32[Array, "*B {length} {dim}"]:
    """Returns sine (even channels) and cosine (odd) of positions scaled to (0, 2 pi].

    Channel j of position i has the angle
    2 pi (i + first) / (extent + 1e-6) / 10000^(2 floor(j / 2) / dim).

    Args:
      length: number of positions.
      dim: number of channels.
      extent: number of positions that are not padding at the end; None = all.
      first: number of the first position.
    """
    extent = jnp.asarray(length if extent is None else extent, jnp.float32)
    position = jnp.arange(first, length + first, dtype=jnp.float32)
    channel = np.arange(dim)
    wavelengths = np.float32(_TEMPERATURE) ** (2 * (channel // 2) / dim)
    # Axes are [*B, length, dim], of equal rank to avoid implicit broadcasting.
    lead = (1,) * extent.ndim
    position = position.reshape(*lead, length, 1)
    wavelength = jnp.asarray(wavelengths, jnp.float32).reshape(*lead, 1, dim)
    scale = 2 * math.pi / (extent[..., None, None] + _EPSILON)
    angle = position * scale / wavelength
    even = (channel % 2 == 0).reshape(*lead, 1, dim)
    return jnp.where(even, jnp.sin(angle), jnp.cos(angle))


def sine_2d(
    height: int, width: int, dim: int
) -> Float32[Array, "{height} {width} {dim}"]:
    """Returns 2D embeddings: the row in the first half of channels, then the column.

    Args:
      height, width: height and width of the map in pixels.
      dim: number of channels, even.
    """
    return _plane(sine_1d(height, dim // 2), sine_1d(width, dim // 2))


def sine_2d_from_zero(
    height: int, width: int, dim: int
) -> Float32[Array, "{height} {width} {dim}"]:
    """Same as `sine_2d`, with angles from 0 (first row or column) to 2 pi (last).

    Source: `PositionEmbeddingSine` of AOT (Yang et al., NeurIPS 2021).
    """
    rows, columns = (
        sine_1d(length, dim // 2, float(length - 1), first=0)
        for length in (height, width)
    )
    return _plane(rows, columns)


def _plane(
    rows: Float32[Array, "h C"], columns: Float32[Array, "w C"]
) -> Float32[Array, "h w _"]:
    shape = (len(rows), len(columns), rows.shape[-1])
    parts = [jnp.broadcast_to(x, shape) for x in (rows[:, None], columns[None])]
    return jnp.concatenate(parts, axis=-1)
