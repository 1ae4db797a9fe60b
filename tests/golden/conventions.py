"""How Mask R-CNN of torchvision and detectron2 differs from the models here.

Only their stored cases need it.
"""

import math

import jax
import jax.numpy as jnp

from vis_jax.ops.box_matching import Matching, claim_best
from vis_jax.ops.roi_align import Convention
from vis_jax.typing import Array, Bool, Float32

# Range of the logarithm of the ratio of sides when decoding, in both libraries.
UPPER = (-math.inf, math.log(1000 / 16))
UNALIGNED = Convention(0.0, 1.0)  # RoIAlign in torchvision's detectors


def add_best(
    matching: Matching,
    iou: Float32[Array, "M N"],
    truth_valid: Bool[Array, "M"],
    *,
    least: float,
) -> Matching:
    """As `claim_best`, but the truth of a candidate does not change.

    The rule of both. Deviation: there, a truth that overlaps nothing makes every
    candidate it does not overlap positive; here it adds nothing.
    """
    claimed = claim_best(matching, iou, truth_valid, least=least)
    return claimed._replace(truth=matching.truth)


def paste_masks(
    values: Float32[Array, "R h w"],
    boxes: Float32[Array, "R 4"],
    *,
    size: tuple[int, int],
) -> Float32[Array, "R _ _"]:
    """Values over boxes, read bilinearly at the centre of every pixel of an image.

    As in detectron2: nothing is rounded, and beyond the centres of the outermost cells
    values fall to 0, which they reach half a cell outside the box.

    Args:
      values: of cells that cover a box, as probabilities of a mask.
      boxes: in pixels of the image.
      size: height and width of the image.
    """
    rows = _cell_weights(boxes[:, 1], boxes[:, 3], size[0], values.shape[1])
    columns = _cell_weights(boxes[:, 0], boxes[:, 2], size[1], values.shape[2])
    return jnp.einsum("ryi,rij,rxj->ryx", rows, values, columns)


def _cell_weights(
    low: jax.Array, high: jax.Array, length: int, cells: int
) -> Float32[Array, "R H h"]:
    """Weight of every cell of a box at every pixel of an axis; 0 for empty boxes."""
    extent = (high - low)[:, None]
    centres = jnp.arange(length, dtype=jnp.float32)[None] + 0.5 - low[:, None]
    at = centres / jnp.where(extent > 0, extent, 1.0) * cells - 0.5
    index = jnp.arange(cells, dtype=jnp.float32).reshape(1, 1, -1)
    near = jnp.maximum(1.0 - jnp.abs(at[..., None] - index), 0.0)
    return jnp.where(extent[..., None] > 0, near, 0.0)
