"""Masks inside boxes."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from vis_jax.ops.roi_align import Convention
from vis_jax.typing import Array, Bool, Float32, Int32, typed


@typed
def crop_masks(
    masks: Bool[Array, "M H W"],
    boxes: Float32[Array, "R 4"],
    index: Int32[Array, "R"],
    *,
    side: int,
    convention: Convention,
) -> Float32[Array, "R _ _"]:
    """The share of a mask in each cell of a box that is cut into `side` x `side`.

    RoIAlign with as many points in a cell as there are pixels, as in torchvision and
    detectron2, which then has a threshold of 0.5. It is separable: the mask is
    multiplied by one matrix of weights for each axis.

    Args:
      masks: in pixels of the image.
      boxes: in pixels, inside the image.
      index: which mask belongs to a box.
      side: cells along each axis.
      convention: where a box lies on the image.

    Returns:
      Values in [0, 1].
    """
    height, width = masks.shape[1:]
    scaled = boxes - convention.shift
    rows = _weights(scaled[:, 1], scaled[:, 3], height, side, convention)
    columns = _weights(scaled[:, 0], scaled[:, 2], width, side, convention)
    chosen = masks[index].astype(jnp.float32)
    return jnp.einsum("rih,rhw,rjw->rij", rows, chosen, columns)


def _weights(
    low: jax.Array, high: jax.Array, length: int, bins: int, convention: Convention
) -> Float32[Array, "R S H"]:
    """Weight of every pixel of an axis in the mean over the points of each bin."""
    extent = jnp.maximum(high - low, convention.least)[:, None, None]
    points = jnp.maximum(jnp.ceil(extent / bins), 1.0)
    number = jnp.arange(math.ceil(length / bins) + 1, dtype=jnp.float32)
    number = number.reshape(1, 1, -1)
    first = jnp.arange(bins, dtype=jnp.float32).reshape(1, -1, 1)
    at = low[:, None, None] + (first + (number + 0.5) / points) * extent / bins
    counts = (number < points) & (at >= -1.0) & (at <= length)
    at = jnp.clip(at, 0.0, length - 1.0)
    pixels = np.arange(length, dtype=np.float32).reshape(1, 1, 1, -1)
    near = jnp.maximum(1.0 - jnp.abs(at[..., None] - pixels), 0.0)
    return jnp.where(counts[..., None], near, 0.0).sum(axis=2) / points
