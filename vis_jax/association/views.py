"""Results of one video seen at several resolutions, matched to one of them.

You et al., "Consistent Video Instance Segmentation with Inter-Frame Recurrent
Attention", 2022, test-time augmentation: one result is the pivot and acts as truth.
"""

import jax
import jax.numpy as jnp

from vis_jax.ops.assignment import hungarian
from vis_jax.ops.soft_overlap import soft_match_cost
from vis_jax.typing import Array, Bool, Float32, Int32


def match_to_pivot(
    pivot_probs: Float32[Array, "N K"],
    pivot_logits: Float32[Array, "N T h w"],
    class_probs: Float32[Array, "N K"],
    mask_logits: Float32[Array, "N T h w"],
    frame_valid: Bool[Array, "T"],
) -> Int32[Array, "N"]:
    """For every instance of the pivot, that of the other result; one to one (Eq. 4).

    Args:
      pivot_probs, pivot_logits: classes and masks of the pivot.
      class_probs, mask_logits: of the other result, on the same grid of pixels.
      frame_valid: False marks padding.
    """
    count = pivot_probs.shape[0]
    shared = jnp.broadcast_to(frame_valid[None], (count, frame_valid.shape[0]))
    masks = soft_match_cost(mask_logits, jax.nn.sigmoid(pivot_logits), shared)
    labels = pivot_probs.argmax(axis=1)
    cost = masks - 2 * class_probs[:, labels]
    return hungarian(cost, jnp.ones((count,), bool))
