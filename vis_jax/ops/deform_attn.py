"""Multi-scale deformable attention: every query reads a few points of every level.

Zhu et al., "Deformable DETR", ICLR 2021, Eq. 3. Letters: Q queries, h heads, L levels,
P points, S tokens of all levels one after the other, d channels of a head.
"""

import jax.numpy as jnp

from vis_jax.typing import Array, Float, Float32, typed

# Up to this many entries of the weights (heads x queries x pixels of a level) two
# matrix products beat the gather.
_DENSE_LIMIT = 1 << 23


@typed
def deform_attn(
    values: Float[Array, "S h d"],
    locations: Float32[Array, "Q h L P 2"],
    weights: Float32[Array, "Q h L P"],
    *,
    shapes: tuple[tuple[int, int], ...],
) -> Float32[Array, "Q h d"]:
    """Sum over levels and points of weight times bilinear reading; zero outside a map.

    Args:
      values: tokens of all levels, row by row.
      locations: x, y in [0, 1] of a level's width and height.
      weights: of each reading.
      shapes: height and width of each level in pixels.

    Raises:
      ValueError: if `shapes` do not fit the tokens or the levels.
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
        pixels = height * width
        dense = heads * queries * pixels <= _DENSE_LIMIT
        read = deform_attn_dense if dense else deform_attn_gather
        grid = values[start : start + pixels].astype(jnp.float32)
        output += read(
            grid.reshape(height, width, heads, -1),
            locations[:, :, level],
            weights[:, :, level],
        )
        start += pixels
    return output


@typed
def deform_attn_dense(
    values: Float32[Array, "H W h d"],
    locations: Float32[Array, "Q h P 2"],
    weights: Float32[Array, "Q h P"],
) -> Float32[Array, "Q h d"]:
    """One level by two matrix products; neither pass needs a gather or a scatter.

    A bilinear reading is the product of a hat over the rows and one over the columns,
    so the weight of every pixel is sum_p weight_p row_hat_p(y) column_hat_p(x).
    """
    height, width = values.shape[:2]
    rows = _pixel_weights(locations[..., 1] * height - 0.5, height)
    columns = _pixel_weights(locations[..., 0] * width - 0.5, width)
    rows = rows * weights[..., None]
    pixels = jnp.einsum("qnpy,qnpx->nqyx", rows, columns)
    return jnp.einsum("nqyx,yxnd->qnd", pixels, values)


@typed
def deform_attn_gather(
    values: Float32[Array, "H W h d"],
    locations: Float32[Array, "Q h P 2"],
    weights: Float32[Array, "Q h P"],
) -> Float32[Array, "Q h d"]:
    """One level by reading the four neighbours of every point."""
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
            read = jnp.take(flat, index * heads + head, axis=0)
            output += jnp.einsum("qnp,qnpd->qnd", corner, read)
    return output


def _pixel_weights(
    positions: Float32[Array, "*P"], length: int
) -> Float32[Array, "*P length"]:
    """Weight of each of `length` pixels in a linear reading at pixel positions.

    Written by the fraction, not as max(1 - |distance|, 0): positions start out exactly
    on pixel centres, and there the slope must be that between two neighbours.
    """
    first = jnp.floor(positions)
    fraction = (positions - first)[..., None]
    pixel = jnp.arange(length, dtype=jnp.float32) - first[..., None]
    here = jnp.where(pixel == 0, 1 - fraction, 0.0)
    return jnp.where(pixel == 1, fraction, here)
