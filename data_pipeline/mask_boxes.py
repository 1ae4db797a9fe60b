"""Tight boxes around masks, in NumPy and as TensorFlow ops, with equal results."""

import numpy as np

from data_pipeline.clip_source import Tensor


def mask_boxes(masks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns tight boxes of masks, and which masks are non-empty.

    Args:
      masks: bool [.., H, W].

    Returns:
      Boxes, float32 [.., 4], x1 y1 x2 y2 in pixels, where column c covers [c, c + 1)
      and an empty mask has zeros; and bool [..].
    """
    columns, rows = np.any(masks, axis=-2), np.any(masks, axis=-1)
    present = np.any(rows, axis=-1)
    x1, y1 = columns.argmax(-1), rows.argmax(-1)
    x2 = masks.shape[-1] - columns[..., ::-1].argmax(-1)
    y2 = masks.shape[-2] - rows[..., ::-1].argmax(-1)
    boxes = np.stack([x1, y1, x2, y2], -1).astype(np.float32)
    return boxes * present[..., None], present


def mask_boxes_graph(masks: Tensor) -> tuple[Tensor, Tensor]:
    """`mask_boxes` for tensors."""
    import tensorflow as tf

    bounds = []
    for axis in (-2, -1):  # columns, rows
        along = tf.reduce_any(masks, axis)
        size = tf.shape(along)[-1]
        place = tf.range(size)
        low = tf.reduce_min(tf.where(along, place, size), -1)
        high = tf.reduce_max(tf.where(along, place + 1, 0), -1)
        bounds.append((low, high))
    (x1, x2), (y1, y2) = bounds
    present = x2 > x1
    boxes = tf.where(present[..., None], tf.stack([x1, y1, x2, y2], -1), 0)
    return tf.cast(boxes, tf.float32), present
