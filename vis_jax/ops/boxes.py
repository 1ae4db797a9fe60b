"""Boxes x1 y1 x2 y2: conversion, area, clipping and overlap.

Column c covers [c, c + 1), so that width = x2 - x1. For models with inclusive corners
(width = x2 - x1 + 1), add one to x2 and y2 first.
"""

import jax.numpy as jnp

from vis_jax.typing import Array, Bool, Float32, Int32


def to_cxcywh(boxes: Float32[Array, "*lead 4"]) -> Float32[Array, "*lead 4"]:
    """Returns centres, widths and heights of boxes, in the same units."""
    low, high = boxes[..., :2], boxes[..., 2:]
    return jnp.concatenate([(low + high) / 2, high - low], axis=-1)


def from_cxcywh(boxes_cxcywh: Float32[Array, "*lead 4"]) -> Float32[Array, "*lead 4"]:
    """Returns corners of boxes given by centre, width and height."""
    centre, half = boxes_cxcywh[..., :2], boxes_cxcywh[..., 2:] / 2
    return jnp.concatenate([centre - half, centre + half], axis=-1)


def box_area(boxes: Float32[Array, "*lead 4"]) -> Float32[Array, "*lead"]:
    """Returns the area in squared pixels; 0 for boxes with swapped corners."""
    sides = jnp.maximum(boxes[..., 2:] - boxes[..., :2], 0.0)
    return sides[..., 0] * sides[..., 1]


def box_iou(
    a: Float32[Array, "N 4"], b: Float32[Array, "M 4"]
) -> Float32[Array, "N M"]:
    """Returns the pairwise IoU in [0, 1]; 0 where both boxes are empty."""
    low = jnp.maximum(a[:, None, :2], b[None, :, :2])
    high = jnp.minimum(a[:, None, 2:], b[None, :, 2:])
    intersection = box_area(jnp.concatenate([low, high], axis=-1))
    union = box_area(a)[:, None] + box_area(b)[None] - intersection
    return jnp.where(union > 0, intersection / jnp.where(union > 0, union, 1.0), 0.0)


def generalized_box_iou(
    a: Float32[Array, "N 4"], b: Float32[Array, "M 4"]
) -> Float32[Array, "N M"]:
    """Returns the pairwise generalised IoU.

    Rezatofighi et al., "Generalized intersection over union", CVPR 2019: IoU minus the
    share of the enclosing box outside both boxes. In [-1, 1]; 0 where both boxes are
    empty and collinear.
    """
    low = jnp.minimum(a[:, None, :2], b[None, :, :2])
    high = jnp.maximum(a[:, None, 2:], b[None, :, 2:])
    around = box_area(jnp.concatenate([low, high], axis=-1))
    iou = box_iou(a, b)
    # IoU = both / (sum - both), so the union is sum / (1 + IoU).
    union = (box_area(a)[:, None] + box_area(b)[None]) / (1.0 + iou)
    outside = (around - union) / jnp.where(around > 0, around, 1.0)
    return iou - jnp.where(around > 0, outside, 0.0)


def clip_boxes(
    boxes: Float32[Array, "*lead 4"], size: Int32[Array, "2"]
) -> Float32[Array, "*lead 4"]:
    """Clips boxes to an image.

    Args:
      boxes: in pixels.
      size: height and width of the image's content in pixels.
    """
    limits = jnp.tile(size[::-1].astype(jnp.float32), 2)
    limits = limits.reshape((1,) * (boxes.ndim - 1) + (4,))
    return jnp.clip(boxes, 0.0, limits)


def at_least(boxes: Float32[Array, "*lead 4"], side: float) -> Bool[Array, "*lead"]:
    """Returns which boxes are at least `side` pixels wide and high."""
    return jnp.all(boxes[..., 2:] - boxes[..., :2] >= side, axis=-1)
