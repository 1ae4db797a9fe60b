"""Detections of one frame that are one object."""

import jax
import jax.numpy as jnp

from vis_jax.ops.mask_iou import mask_iou
from vis_jax.typing import Array, Bool, Float32, Int32


def group_duplicates(
    masks: Bool[Array, "N H W"],
    scores: Float32[Array, "N"],
    valid: Bool[Array, "N"],
    *,
    iou_threshold: float,
) -> Int32[Array, "N"]:
    """Puts detections with nearly the same mask into one slot, whatever their labels.

    Suppression by class leaves an object that was found under two labels twice, and a
    softmax over instances would divide it among both. Greedy: the best detection that
    is in no slot opens one and takes in all others that overlap it.

    Args:
      masks: of the detections.
      scores: rank the detections; the first of equal scores comes first.
      valid: False marks detections that join no slot of others.
      iou_threshold: masks with at least this IoU share a slot.

    Returns:
      For each detection the best one of its slot, which may be itself. Detections that
      are not valid have slots of their own, which are not valid either.
    """
    count = len(scores)
    numbers = jnp.arange(count, dtype=jnp.int32)
    order = jnp.argsort(jnp.where(valid, -scores, jnp.inf), stable=True)
    joins = mask_iou(masks, masks) >= iou_threshold
    joins &= valid[:, None] & valid[None]
    joins |= jnp.eye(count, dtype=bool)  # an empty mask has no IoU with itself

    def open_slot(place: Int32[Array, ""], slots: Int32[Array, "N"]) -> Array:
        leader = order[place].astype(jnp.int32)
        takes = joins[leader] & (slots == count) & (slots[leader] == count)
        return jnp.where(takes, leader, slots)

    # `count` marks those that are in no slot yet.
    return jax.lax.fori_loop(0, count, open_slot, jnp.full_like(numbers, count))
