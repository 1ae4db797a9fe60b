"""Fixed-size non-maximum suppression, and grouping of duplicates."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from vis_jax.ops.boxes import box_iou
from vis_jax.ops.masks import mask_iou
from vis_jax.typing import Array, Bool, Float32, Int32


class NmsResult(NamedTuple):
    """Kept boxes, best score first; ties in input order."""

    chosen: Int32[Array, "S"]  # indices of the input boxes
    valid: Bool[Array, "S"]


def nms_by_label(
    boxes: Float32[Array, "N 4"],
    scores: Float32[Array, "N"],
    labels: Int32[Array, "N"],
    *,
    valid: Bool[Array, "N"],
    iou_threshold: float,
    size: int,
) -> NmsResult:
    """Applies greedy NMS among the boxes of each label.

    Args:
      boxes: in pixels.
      scores: scores of the boxes.
      labels: classes, or pyramid levels.
      valid: False marks boxes that are neither kept nor suppress others.
      iou_threshold: a box is suppressed if its IoU with a better kept one is above
        this.
      size: most boxes returned.

    Raises:
      ValueError: `size` is not in 1 .. N.
    """
    if not 1 <= size <= boxes.shape[0]:
        raise ValueError(f"size: expected 1 .. {boxes.shape[0]} boxes, got {size}")
    order = jnp.argsort(jnp.where(valid, -scores, jnp.inf), stable=True)
    boxes, labels = boxes[order], labels[order]
    overlap = box_iou(boxes, boxes) > iou_threshold
    overlap &= labels[:, None] == labels[None]
    keep = _keep_in_order(overlap, valid[order])
    # Stable, so that kept boxes stay in score order.
    place = jnp.argsort(~keep, stable=True)[:size]
    return NmsResult(order[place].astype(jnp.int32), keep[place])


def nms_each_label(
    boxes: Float32[Array, "K N 4"],
    scores: Float32[Array, "K N"],
    valid: Bool[Array, "K N"],
    *,
    iou_threshold: float,
    size: int,
) -> NmsResult:
    """Applies NMS to K labels with N boxes each, without computing K N x K N IoUs.

    Returns:
      Indices into the K N flattened boxes.

    Raises:
      ValueError: `size` is not in 1 .. K N.
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
        # Back to input order; ONNX has no batched scatter.
        return jax.lax.sort_key_val(order, keep)[1]

    keep = jax.vmap(keep_one)(boxes, scores, valid).ravel()
    order = jnp.argsort(jnp.where(keep, -scores.ravel(), jnp.inf), stable=True)
    order = order[:size].astype(jnp.int32)
    return NmsResult(order, keep[order])


def fast_nms(
    boxes: Float32[Array, "N 4"],
    scores: Float32[Array, "N"],
    *,
    valid: Bool[Array, "N"],
    iou_threshold: float,
    candidates: int,
    size: int,
) -> NmsResult:
    """Suppresses by every better box, including suppressed ones (Fast NMS).

    Bolya et al., "YOLACT", ICCV 2019, section 3.3. Removes a few more boxes than greedy
    NMS and needs no loop.

    Args:
      boxes: in pixels or relative units.
      scores: scores of the boxes; for several classes, the best.
      valid: False marks boxes that are neither kept nor suppress others.
      iou_threshold: a box is suppressed if its IoU with a better one is above this.
      candidates: number of best boxes that take part.
      size: most boxes returned.

    Raises:
      ValueError: unless 1 <= size <= candidates <= N.
    """
    _check_sizes(size, candidates, candidates, len(scores))
    order, keep = _unbeaten(boxes, scores, valid, iou_threshold, candidates)
    place = jnp.argsort(~keep, stable=True)[:size]
    return NmsResult(order[place], keep[place])


def fast_nms_each_label(
    boxes: Float32[Array, "N 4"],
    scores: Float32[Array, "K N"],
    *,
    valid: Bool[Array, "N"],
    iou_threshold: float,
    candidates: int,
    size: int,
) -> NmsResult:
    """Applies `fast_nms` to each of K labels, with boxes that all labels share.

    Args:
      boxes, valid, iou_threshold: see `fast_nms`.
      scores: scores of each label; a box may be kept for several labels.
      candidates: number of best boxes per label that take part.
      size: most boxes returned, over all labels.

    Returns:
      Indices into the K N flattened scores.

    Raises:
      ValueError: unless 1 <= size <= K candidates and candidates <= N.
    """
    labels, count = scores.shape
    _check_sizes(size, labels * candidates, candidates, count)

    def one(scores: Float32[Array, "N"]) -> tuple[Int32[Array, "C"], Bool[Array, "C"]]:
        return _unbeaten(boxes, scores, valid, iou_threshold, candidates)

    order, keep = jax.vmap(one)(scores)
    order += count * jnp.arange(labels, dtype=jnp.int32)[:, None]
    order, keep = order.ravel(), keep.ravel()
    best = jnp.where(keep, -scores.ravel()[order], jnp.inf)
    place = jnp.argsort(best, stable=True)[:size]
    return NmsResult(order[place], keep[place])


def _check_sizes(size: int, most: int, candidates: int, count: int) -> None:
    if not 1 <= candidates <= count:
        raise ValueError(f"candidates: expected 1 .. {count} boxes, got {candidates}")
    if not 1 <= size <= most:
        raise ValueError(f"size: expected 1 .. {most} boxes, got {size}")


def _unbeaten(
    boxes: Float32[Array, "N 4"],
    scores: Float32[Array, "N"],
    valid: Bool[Array, "N"],
    iou_threshold: float,
    candidates: int,
) -> tuple[Int32[Array, "C"], Bool[Array, "C"]]:
    """Returns the best boxes by score, and which of them no better one suppresses."""
    score, order = jax.lax.top_k(jnp.where(valid, scores, -jnp.inf), candidates)
    best = boxes[order]
    overlap = box_iou(best, best) > iou_threshold
    # Invalid boxes come last, so they suppress no valid ones.
    beaten = jnp.any(jnp.tril(overlap, -1), axis=1)
    return order, ~beaten & (score > -jnp.inf)


def _keep_in_order(
    overlap: Bool[Array, "N N"], valid: Bool[Array, "N"]
) -> Bool[Array, "N"]:
    """Selects greedily among boxes sorted by score.

    A box is kept unless an earlier kept one overlaps it. Applying this to all boxes at
    once and repeating settles from the front: after i rounds the first i boxes are
    final. Suppression chains are short, so few rounds replace a loop over N boxes.
    """
    before = jnp.tril(overlap, -1)  # [i, j]: j comes before i and overlaps it

    def once(state):
        _, keep = state
        return keep, valid & ~jnp.any(before & keep[None], axis=1)

    def changed(state):
        return jnp.any(state[0] != state[1])

    _, keep = jax.lax.while_loop(changed, once, once((valid, valid)))
    return keep


def group_duplicates(
    masks: Bool[Array, "N H W"],
    scores: Float32[Array, "N"],
    valid: Bool[Array, "N"],
    *,
    iou_threshold: float,
) -> Int32[Array, "N"]:
    """Groups detections with nearly the same mask, regardless of label.

    Per-class NMS keeps an object detected under two labels twice, and a softmax over
    instances would split it between both. Greedy: the best ungrouped detection starts a
    slot and absorbs all others that overlap it.

    Args:
      masks: masks of the detections.
      scores: scores of the detections; ties in input order.
      valid: False marks detections that are never grouped with others.
      iou_threshold: masks with at least this IoU share a slot.

    Returns:
      For each detection the best one of its slot, possibly itself. Invalid detections
      have their own slots, which are also invalid.
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

    # `count` marks detections not in a slot yet.
    return jax.lax.fori_loop(0, count, open_slot, jnp.full_like(numbers, count))
