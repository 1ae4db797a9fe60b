"""Rotary position embeddings of patches, and resized position tables.

Simeoni et al., "DINOv3", 2025, section 3.2; the tables follow DINOv2.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from vis_jax.typing import Array, Bool, Float, Float32, Int32

THETA = 100.0  # ratio of the longest to the shortest wavelength, as in DINOv3


class Rotary(NamedTuple):
    """Cosine and sine that rotate a head's channels, for each patch."""

    cos: Float32[Array, "*N P d"]
    sin: Float32[Array, "*N P d"]


def rotary_positions(
    height: int,
    width: int,
    dim: int,
    *,
    theta: float = THETA,
    content: Int32[Array, "2"] | None = None,
    scale: Float32[Array, ""] | None = None,
) -> Rotary:
    """Returns angles 2 pi (y f_k), 2 pi (x f_k) of a grid, f_k = theta^(-4 k / dim).

    The centre of patch (i, j) has y = 2 (i + 0.5) / height - 1, and x likewise, so both
    axes span [-1, 1] for every aspect ratio. The angles are repeated for the two halves
    of the channels.

    Args:
      height, width: height and width of the grid in patches.
      dim: channels per head, a multiple of 4.
      theta: see above.
      content: height and width of the top-left part that is not padding, whose edges
        are then -1 and 1; None = the whole grid.
      scale: scale of y and x; None = 1.
    """
    frequency = theta ** (-4.0 * jnp.arange(dim // 4, dtype=jnp.float32) / dim)

    extent = jnp.array([height, width]) if content is None else content
    extent = extent.astype(jnp.float32)

    def angles(count: int, axis: int) -> Float32[Array, "n k"]:
        at = jnp.arange(count, dtype=jnp.float32) + 0.5
        at = 2.0 * at / extent[axis] - 1.0
        at = at if scale is None else at * scale
        return 2.0 * math.pi * at[:, None] * frequency[None]

    rows = jnp.broadcast_to(angles(height, 0)[:, None], (height, width, dim // 4))
    columns = jnp.broadcast_to(angles(width, 1)[None], (height, width, dim // 4))
    angle = jnp.concatenate([rows, columns, rows, columns], axis=-1)
    angle = angle.reshape(height * width, dim)
    return Rotary(jnp.cos(angle), jnp.sin(angle))


def rotate_patches(
    x: Float[Array, "*lead S heads d"], rotary: Rotary
) -> Float[Array, "*lead S heads d"]:
    """Rotates the last tokens, the patches, in float32; others are unchanged.

    x cos + [-b, a] sin for the halves [a, b] of the channels.
    """
    patches = rotary.cos.shape[-2]
    front, x32 = x[..., :-patches, :, :], x[..., -patches:, :, :].astype(jnp.float32)
    a, b = jnp.split(x32, 2, axis=-1)
    lead = rotary.cos.shape[:-2] or (1,) * (x.ndim - 3)
    cos, sin = (v.reshape(*lead, patches, 1, -1) for v in rotary)
    turned = x32 * cos + jnp.concatenate([-b, a], axis=-1) * sin
    return jnp.concatenate([front, turned.astype(x.dtype)], axis=-3)


def resize_table(
    table: Float32[Array, "a b C"],
    size: tuple[int, int],
    content: Int32[Array, "2"] | None = None,
) -> Float32[Array, "h w C"]:
    """Resizes a position table to another grid: bicubic, with antialiasing.

    Args:
      table: one vector per position of the original grid.
      size: height and width of the new grid.
      content: height and width of the top-left part to stretch the table over, with
        zeros outside; None = the whole grid.
    """
    shape = (*size, table.shape[-1])
    if content is not None:
        side = jnp.array(table.shape[:2], jnp.float32)
        scale = content.astype(jnp.float32) / side
        return jax.image.scale_and_translate(
            table, shape, (0, 1), scale, jnp.zeros(2), "cubic", antialias=True
        )
    if table.shape[:2] == size:
        return table
    return jax.image.resize(table, shape, "cubic", antialias=True)


def inside_content(
    content: Int32[Array, "2"], size: tuple[int, int]
) -> Bool[Array, "h w"]:
    """Returns where a grid has content: its top-left part of this size."""
    rows, columns = (jnp.arange(n) < content[i] for i, n in enumerate(size))
    return rows[:, None] & columns[None]
