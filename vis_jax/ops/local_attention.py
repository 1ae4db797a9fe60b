"""Attention of every place of a map to a window around it on another map.

Yang et al., "Associating Objects with Transformers for Video Object Segmentation",
NeurIPS 2021, section 4.2, with the relative terms of its code. Letters: d channels of a
head, S side of the window, P = S * S places in it, row by row.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from vis_jax.typing import Array, Bool, Float

_OUTSIDE = -1e9  # finite, so that gradients of a softmax stay finite


def local_attention(
    queries: Float[Array, "h w heads d"],
    keys: Float[Array, "h w heads d"],
    values: Float[Array, "h w heads d"],
    *,
    relative: Float[Array, "h w heads P"],
    value_bias: Float[Array, "heads d P"],
) -> Float[Array, "h w heads d"]:
    """Softmax attention to the places of the window that lie on the map.

    All pairs of places are computed and those further apart masked: maps at stride 16
    or 32 are hardly larger than the window.

    Args:
      queries: of the map that looks; scaled here, by 1 / sqrt(d).
      keys, values: of the map that is looked at.
      relative: added to the logits, by the place in the window.
      value_bias: added to the values, by the place in the window.
    """
    height, width, heads, dim = queries.shape
    logits = jnp.einsum("yxhd,uvhd->hyxuv", queries * dim**-0.5, keys)
    logits = logits.astype(jnp.float32) + _pairs(relative).astype(jnp.float32)
    side = math.isqrt(relative.shape[-1])
    logits = jnp.where(_near(height, width, side // 2)[None], logits, _OUTSIDE)
    weights = jax.nn.softmax(logits, axis=(-2, -1)).astype(values.dtype)
    found = jnp.einsum("hyxuv,uvhd->yxhd", weights, values)
    biases = value_bias.astype(values.dtype)
    return found + jnp.einsum("hyxp,hdp->yxhd", _windows(weights, side), biases)


def _near(height: int, width: int, radius: int) -> Bool[np.ndarray, "y x u v"]:
    """Which places lie in the window of which."""
    rows, columns = (
        np.abs(np.subtract.outer(np.arange(n), np.arange(n))) <= radius
        for n in (height, width)
    )
    return rows[:, None, :, None] & columns[None, :, None, :]


def _pairs(x: Float[Array, "y x heads P"]) -> Float[Array, "heads y x y x"]:
    """What is given by place in the window, by place on the map; 0 outside."""
    height, width, heads, places = x.shape
    side = math.isqrt(places)
    x = x.reshape(height, width, heads, side, side)
    x = _spread(x.transpose(2, 0, 3, 1, 4))  # [heads, y, dy, x, v]
    x = _spread(x.transpose(0, 3, 4, 1, 2))  # [heads, x, v, y, u]
    return x.transpose(0, 3, 1, 4, 2)


def _windows(
    x: Float[Array, "heads y x y x"], side: int
) -> Float[Array, "heads y x P"]:
    """What is given by place on the map, by place in the window; 0 off the map."""
    heads, height, width = x.shape[:3]
    x = _collect(x.transpose(0, 2, 4, 1, 3), side)  # [heads, x, v, y, dy]
    x = _collect(x.transpose(0, 3, 4, 1, 2), side)  # [heads, y, dy, x, dx]
    x = x.transpose(0, 1, 3, 2, 4)
    return x.reshape(heads, height, width, side * side)


# A row for each query moves by one place from query to query. Cutting the rows anew, at
# a length that differs by one, moves them without a gather, whose gradient would be a
# scatter.


def _spread(x: Float[Array, "*lead n S"]) -> Float[Array, "*lead n n"]:
    """Entry (query, offset) goes to (query, query + offset)."""
    *lead, length, side = x.shape
    total = length + side - 1  # keys with the margins of the first and the last query
    x = _pad_end(x, total + 1 - side).reshape(*lead, -1)
    x = x[..., : length * total].reshape(*lead, length, total)
    return x[..., side // 2 : side // 2 + length]


def _collect(x: Float[Array, "*lead n n"], side: int) -> Float[Array, "*lead n {side}"]:
    """Entry (query, key) goes to (query, key - query); the inverse."""
    *lead, length, _ = x.shape
    margin = (side // 2, side // 2)
    x = jnp.pad(x, (*((0, 0),) * (x.ndim - 1), margin)).reshape(*lead, -1)
    x = _pad_end(x, length).reshape(*lead, length, length + side)
    return x[..., :side]


def _pad_end(x: Float[Array, "*lead n"], zeros: int) -> Float[Array, "*lead m"]:
    return jnp.pad(x, (*((0, 0),) * (x.ndim - 1), (0, zeros)))
