"""Rotary positions of patches, and learned tables of positions resized to any grid.

Simeoni et al., "DINOv3", 2025, section 3.2; the tables are those of DINOv2.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from vis_jax.typing import Array, Float, Float32

THETA = 100.0  # ratio of the longest to the shortest wavelength, as in DINOv3


class Rotary(NamedTuple):
    """Cosine and sine by which the channels of a head are turned, for each patch."""

    cos: Float32[Array, "P d"]
    sin: Float32[Array, "P d"]


def rotary_positions(
    height: int,
    width: int,
    dim: int,
    *,
    theta: float = THETA,
    scale: Float32[Array, ""] | float = 1.0,
) -> Rotary:
    """Angles 2 pi (y f_k), 2 pi (x f_k) of a grid, f_k = theta^(-4 k / dim).

    The centre of patch (i, j) has y = 2 (i + 0.5) / height - 1 and x alike, so that
    both axes span [-1, 1] whatever the aspect. The angles stand twice, once for each
    half of the channels.

    Args:
      height, width: of the grid in patches.
      dim: channels of a head, a multiple of 4.
      theta: see above.
      scale: factor of all coordinates.
    """
    frequency = theta ** (-4.0 * jnp.arange(dim // 4, dtype=jnp.float32) / dim)

    def angles(count: int) -> Float32[Array, "n k"]:
        at = 2.0 * (jnp.arange(count, dtype=jnp.float32) + 0.5) / count - 1.0
        return 2.0 * math.pi * scale * at[:, None] * frequency[None]

    rows = jnp.broadcast_to(angles(height)[:, None], (height, width, dim // 4))
    columns = jnp.broadcast_to(angles(width)[None], (height, width, dim // 4))
    angle = jnp.concatenate([rows, columns, rows, columns], axis=-1)
    angle = angle.reshape(height * width, dim)
    return Rotary(jnp.cos(angle), jnp.sin(angle))


def rotate_patches(
    x: Float[Array, "*lead S heads d"], rotary: Rotary
) -> Float[Array, "*lead S heads d"]:
    """Turns the last tokens, the patches, in float32; those in front stay as they are.

    x cos + [-b, a] sin for the halves [a, b] of the channels.
    """
    patches = rotary.cos.shape[0]
    front, x32 = x[..., :-patches, :, :], x[..., -patches:, :, :].astype(jnp.float32)
    a, b = jnp.split(x32, 2, axis=-1)
    lead = (1,) * (x.ndim - 3)
    cos, sin = (v.reshape(*lead, patches, 1, -1) for v in rotary)
    turned = x32 * cos + jnp.concatenate([-b, a], axis=-1) * sin
    return jnp.concatenate([front, turned.astype(x.dtype)], axis=-3)


def resize_table(
    table: Float32[Array, "a b C"], size: tuple[int, int]
) -> Float32[Array, "h w C"]:
    """A table of positions for another grid: bicubic, with antialiasing.

    Args:
      table: one vector for each place of the grid it was learned on.
      size: height and width of the new grid.
    """
    if table.shape[:2] == size:
        return table
    shape = (*size, table.shape[-1])
    return jax.image.resize(table, shape, "cubic", antialias=True)
