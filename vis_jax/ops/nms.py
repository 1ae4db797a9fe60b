"""Non-maximum suppression with outputs of fixed size."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from vis_jax.ops.boxes import box_iou
from vis_jax.typing import Array, Bool, Float32, Int32


class Kept(NamedTuple):
    """The boxes kept, best score first; the first of equal scores comes first."""

    chosen: Int32[Array, "S"]  # into the boxes given
    valid: Bool[Array, "S"]


def nms_by_label(
    boxes: Float32[Array, "N 4"],
    scores: Float32[Array, "N"],
    labels: Int32[Array, "N"],
    *,
    valid: Bool[Array, "N"],
    iou_threshold: float,
    size: int,
) -> Kept:
    """Greedy suppression among the boxes of each label.

    Args:
      boxes: in pixels.
      scores: rank the boxes.
      labels: classes, or levels of a pyramid.
      valid: False marks boxes that are neither kept nor suppress others.
      iou_threshold: a box goes if its IoU with a better kept one is above this.
      size: how many to return at most.

    Raises:
      ValueError: if `size` is not in 1 .. N.
    """
    if not 1 <= size <= boxes.shape[0]:
        raise ValueError(f"size: expected 1 .. {boxes.shape[0]} boxes, got {size}")
    order = jnp.argsort(jnp.where(valid, -scores, jnp.inf), stable=True)
    boxes, labels = boxes[order], labels[order]
    overlap = box_iou(boxes, boxes) > iou_threshold
    overlap &= labels[:, None] == labels[None]
    keep = _keep_in_order(overlap, valid[order])
    # Stable: those kept stay in the order of their scores.
    place = jnp.argsort(~keep, stable=True)[:size]
    return Kept(order[place].astype(jnp.int32), keep[place])


def nms_each_label(
    boxes: Float32[Array, "K N 4"],
    scores: Float32[Array, "K N"],
    valid: Bool[Array, "K N"],
    *,
    iou_threshold: float,
    size: int,
) -> Kept:
    """The best boxes of K labels, each with N boxes of its own, without K N x K N IoUs.

    Returns:
      Indices into the K N flattened boxes.

    Raises:
      ValueError: if `size` is not in 1 .. K N.
    """
    classes, count = scores.shape
    if not 1 <= size <= classes * count:
        raise ValueError(f"size: expected 1 .. {classes * count} boxes, got {size}")

    def keep_one(
        boxes: Float32[Array, "N 4"],
        scores: Float32[Array, "N"],
        valid: Bool[Array, "N"],
    ) -> Bool[Array, "N"]:
        order = jnp.argsort(jnp.where(valid, -scores, jnp.inf), stable=True)
        overlap = box_iou(boxes[order], boxes[order]) > iou_threshold
        keep = _keep_in_order(overlap, valid[order])
        return jnp.zeros_like(keep).at[order].set(keep)

    keep = jax.vmap(keep_one)(boxes, scores, valid).ravel()
    order = jnp.argsort(jnp.where(keep, -scores.ravel(), jnp.inf), stable=True)
    order = order[:size].astype(jnp.int32)
    return Kept(order, keep[order])


def _keep_in_order(
    overlap: Bool[Array, "N N"], valid: Bool[Array, "N"]
) -> Bool[Array, "N"]:
    """Greedy choice among boxes sorted by score.

    A box is kept unless a kept one before it overlaps it. Applied to all boxes at once
    and repeated, this settles from the front: after i rounds the first i boxes are
    final. Chains of suppression are short, so that few rounds do where a loop over the
    boxes takes N.
    """
    before = jnp.tril(overlap, -1)  # [i, j]: j comes before i and overlaps it

    def once(state):
        _, keep = state
        return keep, valid & ~jnp.any(before & keep[None], axis=1)

    def changed(state):
        return jnp.any(state[0] != state[1])

    _, keep = jax.lax.while_loop(changed, once, once((valid, valid)))
    return keep
