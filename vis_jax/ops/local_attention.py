"""Attention from every position of a map to a window around it on another map.

Yang et al., "Associating Objects with Transformers for Video Object Segmentation",
NeurIPS 2021, section 4.2, with the relative terms of its code. Letters: d channels per
head, S side of the window, P = S * S positions in it, row by row.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from vis_jax.typing import Array, Bool, Float

_OUTSIDE = -1e9  # finite, so that softmax gradients stay finite


def local_attention(
    queries: Float[Array, "h w heads d"],
    keys: Float[Array, "h w heads d"],
    values: Float[Array, "h w heads d"],
    *,
    relative: Float[Array, "h w heads P"],
    value_bias: Float[Array, "heads d P"],
) -> Float[Array, "h w heads d"]:
    """Attends with a softmax over the window's positions that lie on the map.

    All pairs of positions are computed and distant ones masked: maps at stride 16 or 32
    are hardly larger than the window.

    Args:
      queries: queries of the attending map; scaled here by 1 / sqrt(d).
      keys, values: keys and values of the attended map.
      relative: added to the logits, per window position.
      value_bias: added to the values, per window position.
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
    """Returns which positions lie in each other's window."""
    rows, columns = (
        np.abs(np.subtract.outer(np.arange(n), np.arange(n))) <= radius
        for n in (height, width)
    )
    return rows[:, None, :, None] & columns[None, :, None, :]


def _pairs(x: Float[Array, "y x heads P"]) -> Float[Array, "heads y x y x"]:
    """Reindexes from window positions to map positions; 0 outside the window."""
    height, width, heads, places = x.shape
    side = math.isqrt(places)
    x = x.reshape(height, width, heads, side, side)
    x = _spread(x.transpose(2, 0, 3, 1, 4))  # [heads, y, dy, x, v]
    x = _spread(x.transpose(0, 3, 4, 1, 2))  # [heads, x, v, y, u]
    return x.transpose(0, 3, 1, 4, 2)


def _windows(
    x: Float[Array, "heads y x y x"], side: int
) -> Float[Array, "heads y x P"]:
    """Reindexes from map positions to window positions; 0 off the map."""
    heads, height, width = x.shape[:3]
    x = _collect(x.transpose(0, 2, 4, 1, 3), side)  # [heads, x, v, y, dy]
    x = _collect(x.transpose(0, 3, 4, 1, 2), side)  # [heads, y, dy, x, dx]
    x = x.transpose(0, 1, 3, 2, 4)
    return x.reshape(heads, height, width, side * side)


# Rows shift by one position from query to query. Reshaping the rows to a length that
# differs by one performs the shift without a gather, whose gradient would be a scatter.


def _spread(x: Float[Array, "*lead n S"]) -> Float[Array, "*lead n n"]:
    """Moves entry (query, offset) to (query, query + offset)."""
    *lead, length, side = x.shape
    total = length + side - 1  # keys with the margins of the first and the last query
    x = _pad_end(x, total + 1 - side).reshape(*lead, -1)
    x = x[..., : length * total].reshape(*lead, length, total)
    return x[..., side // 2 : side // 2 + length]


def _collect(x: Float[Array, "*lead n n"], side: int) -> Float[Array, "*lead n {side}"]:
    """Moves entry (query, key) to (query, key - query); the inverse of `_spread`."""
    *lead, length, _ = x.shape
    margin = (side // 2, side // 2)
    x = jnp.pad(x, (*((0, 0),) * (x.ndim - 1), margin)).reshape(*lead, -1)
    x = _pad_end(x, length).reshape(*lead, length, length + side)
    return x[..., :side]


def _pad_end(x: Float[Array, "*lead n"], zeros: int) -> Float[Array, "*lead m"]:
    return jnp.pad(x, (*((0, 0),) * (x.ndim - 1), (0, zeros)))
