"""Multi-scale deformable attention: every query samples a few points of every level.

Zhu et al., "Deformable DETR", ICLR 2021, Eq. 3. Letters: Q queries, h heads, L levels,
P points, S tokens of all levels concatenated, d channels per head.

Sampling uses gathers. Matrix products (hat weights over rows and columns) would need no
scatter in the backward pass, but are slower: for one level on two CPU cores, forward
and backward, 8 heads, 4 points, 4 frames, they take 9 to 43 ms against 3 to 17 ms at 96
x 160, and 1 to 7 times as long from 192 x 320 on, with memory that grows with queries x
pixels.
"""

import jax.numpy as jnp

from vis_jax.typing import Array, Float, Float32


def deform_attn(
    values: Float[Array, "S h d"],
    locations: Float32[Array, "Q h L P 2"],
    weights: Float32[Array, "Q h L P"],
    *,
    shapes: tuple[tuple[int, int], ...],
) -> Float32[Array, "Q h d"]:
    """Sums weight times bilinear sample over levels and points; zero outside a map.

    Args:
      values: tokens of all levels, row by row; converted to float32.
      locations: x, y in [0, 1] of a level's width and height.
      weights: attention weight of each sample.
      shapes: height and width of each level in pixels.

    Raises:
      ValueError: `shapes` do not match the tokens or the levels.
    """
    tokens = sum(height * width for height, width in shapes)
    if tokens != values.shape[0] or len(shapes) != locations.shape[2]:
        raise ValueError(
            f"shapes: expected {locations.shape[2]} levels with {values.shape[0]}"
            f" tokens, got {shapes} with {tokens}"
        )
    queries, heads = locations.shape[:2]
    output = jnp.zeros((queries, heads, values.shape[2]), jnp.float32)
    start = 0
    for level, (height, width) in enumerate(shapes):
        grid = values[start : start + height * width].astype(jnp.float32)
        output += read_level(
            grid.reshape(height, width, heads, -1),
            locations[:, :, level],
            weights[:, :, level],
        )
        start += height * width
    return output


def read_level(
    values: Float32[Array, "H W h d"],
    locations: Float32[Array, "Q h P 2"],
    weights: Float32[Array, "Q h P"],
) -> Float32[Array, "Q h d"]:
    """Returns the sum for one level: the four weighted neighbours of every point.

    The gradient at a pixel's centre, where locations start, is that of the cell to the
    right and below.
    """
    height, width, heads, _ = values.shape
    flat = values.reshape(height * width * heads, -1)
    x = locations[..., 0] * width - 0.5
    y = locations[..., 1] * height - 0.5
    x0, y0 = jnp.floor(x), jnp.floor(y)
    right, below = x - x0, y - y0
    head = jnp.arange(heads)[None, :, None]
    output = jnp.zeros((*weights.shape[:2], values.shape[3]), jnp.float32)
    for yi, row_weight in ((y0, 1 - below), (y0 + 1, below)):
        for xi, column_weight in ((x0, 1 - right), (x0 + 1, right)):
            inside = (xi >= 0) & (xi < width) & (yi >= 0) & (yi < height)
            index = jnp.where(inside, yi * width + xi, 0).astype(jnp.int32)
            corner = row_weight * column_weight * weights
            corner = jnp.where(inside, corner, 0.0)
            neighbour = flat.at[index * heads + head].get(mode="promise_in_bounds")
            output += jnp.einsum("qnp,qnpd->qnd", corner, neighbour)
    return output
