"""Pseudo-clips: frames are smoothly moving views of one image.

A view is a rotated and scaled window that stays within the image. Letters: N instances,
T frames; h w pixels of the image, H W of a frame.
"""

from typing import NamedTuple

import numpy as np

from data_pipeline.clip_source import Tensor


class ViewLimits(NamedTuple):
    """Limits of the views."""

    zoom: tuple[float, float]  # min, max, as a fraction of the largest window
    angle: float  # maximum rotation to either side, degrees


def draw_views(rng: np.random.Generator, frames: int, motion: ViewLimits) -> np.ndarray:
    """Draws the path of a window: float64 [T, 4].

    Position, angle and zoom each follow a quadratic Bezier curve with uniform control
    points; the curve stays within their span.

    Returns:
      x, y: position between the limits, -1 to 1; angle in radians; zoom.
    """
    turn = np.deg2rad(motion.angle)
    low = np.array([-1.0, -1.0, -turn, motion.zoom[0]])
    high = np.array([1.0, 1.0, turn, motion.zoom[1]])
    start, bend, end = rng.uniform(low, high, (3, 4))
    t = np.linspace(0.0, 1.0, frames)[:, None]
    return (1 - t) ** 2 * start + 2 * t * (1 - t) * bend + t**2 * end


def image_extent(views: np.ndarray, size: tuple[int, int]) -> tuple[int, int]:
    """Returns the image size at which views are about 1 : 1.

    Args:
      views: float [T, 4] of `draw_views`.
      size: H, W in pixels.
    """
    zoom = float(views[:, 3].mean())
    return max(1, round(size[0] / zoom)), max(1, round(size[1] / zoom))


def view_matrices(
    views: np.ndarray, image: tuple[int, int], size: tuple[int, int]
) -> np.ndarray:
    """Returns affine matrices from frame to image points: float64 [T, 2, 3].

    Points are x, y in pixels; the pixel in column c covers [c, c + 1).

    Args:
      views: float [T, 4] of `draw_views`.
      image: h, w in pixels.
      size: H, W in pixels.
    """
    x, y, angle, zoom = views.T
    (h, w), (H, W) = image, size
    cos, sin = np.cos(angle), np.sin(angle)
    # Sides of the axis-aligned box around the rotated frame, at scale 1.
    across, down = W * cos + H * np.abs(sin), W * np.abs(sin) + H * cos
    scale = zoom * np.minimum(w / across, h / down)
    centre_x = (w + x * (w - scale * across)) / 2
    centre_y = (h + y * (h - scale * down)) / 2
    turned = scale[:, None, None] * np.stack(
        [np.stack([cos, -sin], -1), np.stack([sin, cos], -1)], 1
    )
    centre = np.stack([centre_x, centre_y], -1)
    shift = centre - turned @ np.array([W / 2, H / 2])
    return np.concatenate([turned, shift[..., None]], -1)


def take_views(
    image: Tensor, masks: Tensor, matrices: Tensor, size: Tensor
) -> tuple[Tensor, Tensor]:
    """Samples frames bilinearly and masks by nearest neighbour, as tensors.

    Args:
      image: uint8 [h, w, 3].
      masks: bool [N, h, w].
      matrices: float32 [T, 2, 3] of `view_matrices`; T is static.
      size: int32 [2], H and W.

    Returns:
      uint8 [T, H, W, 3] and bool [N, T, H, W].
    """
    import tensorflow as tf

    # One call per frame: a single call would need T copies of the image.
    frames = tf.stack(
        [_take_pixels(image, matrix, size) for matrix in tf.unstack(matrices)]
    )
    x = tf.range(size[1], dtype=tf.float32)[None, None, :] + 0.5
    y = tf.range(size[0], dtype=tf.float32)[None, :, None] + 0.5
    place = matrices[..., None, None]
    columns = place[:, 0, 0] * x + place[:, 0, 1] * y + place[:, 0, 2]
    rows = place[:, 1, 0] * x + place[:, 1, 1] * y + place[:, 1, 2]
    height, width = tf.shape(masks)[1], tf.shape(masks)[2]
    # Rounding may put a point at the border outside.
    columns = tf.clip_by_value(tf.cast(tf.floor(columns), tf.int32), 0, width - 1)
    rows = tf.clip_by_value(tf.cast(tf.floor(rows), tf.int32), 0, height - 1)
    flat = tf.reshape(masks, [-1, height * width])
    return frames, tf.gather(flat, rows * width + columns, axis=1)


def _take_pixels(image: Tensor, matrix: Tensor, size: Tensor) -> Tensor:
    """Samples one frame: uint8 [H, W, 3]."""
    import tensorflow as tf

    # The op has pixel centres at integers.
    turned, half = matrix[:, :2], tf.constant([[0.5], [0.5]])
    shift = matrix[:, 2:] + turned @ half - half
    row = tf.concat([tf.reshape(tf.concat([turned, shift], 1), [6]), tf.zeros([2])], 0)
    frame = tf.raw_ops.ImageProjectiveTransformV3(
        images=tf.cast(image, tf.float32)[None],
        transforms=row[None],
        output_shape=size,
        interpolation="BILINEAR",
        fill_mode="NEAREST",  # half a pixel at the border
        fill_value=0.0,
    )
    return tf.cast(tf.clip_by_value(frame[0] + 0.5, 0.0, 255.0), tf.uint8)
