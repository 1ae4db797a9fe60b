"""Pads clips to a canvas and instances to slots, with validity masks.

Implemented in NumPy and as TensorFlow ops, with equal results. Letters: N instances
before, M slots after; t frames before, T after; h w pixels of the content, H W of the
canvas.
"""

import numpy as np

from data_pipeline.clip_source import Tensor
from data_pipeline.mask_boxes import mask_boxes, mask_boxes_graph


def pad_clip(
    images: np.ndarray,
    masks: np.ndarray,
    *,
    labels: np.ndarray,
    track_ids: np.ndarray,
    frames: int,
    canvas: tuple[int, int],
    instances: int,
) -> dict[str, np.ndarray]:
    """Pads one clip to the form of `schema.BATCH`, without the batch axis.

    Instances without pixels in the clip are dropped. If more than M remain, those with
    the most pixels over all frames are kept; ties go to the first. Slots keep the order
    of the tracks.

    Args:
      images: uint8 [t, h, w, 3], at most as large as the canvas.
      masks: bool [N, t, h, w].
      labels, track_ids: int32 [N].
      frames: T, at least t; the rest is padding at the end.
      canvas: H and W in pixels.
      instances: M.
    """
    areas = masks.sum((1, 2, 3))
    largest = np.argsort(-areas, kind="stable")[:instances]
    keep = np.sort(largest[areas[largest] > 0])
    masks = masks[keep]
    boxes, present = mask_boxes(masks)
    count, height, width = images.shape[:3]
    after, bottom, right = frames - count, canvas[0] - height, canvas[1] - width
    empty = instances - len(keep)
    return {
        "images": np.pad(images, [(0, after), (0, bottom), (0, right), (0, 0)]),
        "frame_valid": np.arange(frames) < count,
        "sizes": np.array([height, width], np.int32),
        "masks": np.pad(masks, [(0, empty), (0, after), (0, bottom), (0, right)]),
        "boxes": np.pad(boxes, [(0, empty), (0, after), (0, 0)]),
        "present": np.pad(present, [(0, empty), (0, after)]),
        "labels": np.pad(labels[keep].astype(np.int32), (0, empty)),
        "track_ids": np.pad(track_ids[keep].astype(np.int32), (0, empty)),
        "instance_valid": np.arange(instances) < len(keep),
    }


def pad_clip_graph(
    images: Tensor,
    masks: Tensor,
    *,
    labels: Tensor,
    track_ids: Tensor,
    frames: int,
    canvas: tuple[int, int],
    instances: int,
) -> dict[str, Tensor]:
    """`pad_clip` for tensors."""
    import tensorflow as tf

    areas = tf.reduce_sum(tf.cast(masks, tf.int32), [1, 2, 3])
    largest = tf.argsort(-areas, stable=True)[:instances]
    keep = tf.sort(tf.boolean_mask(largest, tf.gather(areas, largest) > 0))
    masks = tf.gather(masks, keep)
    boxes, present = mask_boxes_graph(masks)
    count, size = tf.shape(images)[0], tf.shape(images)[1:3]
    after = frames - count
    bottom, right = canvas[0] - size[0], canvas[1] - size[1]
    empty = instances - tf.size(keep)

    def fill(tensor: Tensor, paddings: list, *shape: int) -> Tensor:
        return tf.ensure_shape(tf.pad(tensor, paddings), shape)

    space = [[0, bottom], [0, right]]
    slots, rest = [0, empty], [0, after]
    return {
        "images": fill(images, [rest, *space, [0, 0]], frames, *canvas, 3),
        "frame_valid": tf.range(frames) < count,
        "sizes": size,
        "masks": fill(masks, [slots, rest, *space], instances, frames, *canvas),
        "boxes": fill(boxes, [slots, rest, [0, 0]], instances, frames, 4),
        "present": fill(present, [slots, rest], instances, frames),
        "labels": fill(tf.gather(labels, keep), [slots], instances),
        "track_ids": fill(tf.gather(track_ids, keep), [slots], instances),
        "instance_valid": tf.range(instances) < tf.size(keep),
    }
