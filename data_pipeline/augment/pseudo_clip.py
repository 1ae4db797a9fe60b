"""An image set in motion: each frame of the clip is a view of it, moving smoothly.

A view is a window of the image, turned and scaled, that never leaves it. Letters:
N instances, T frames; h w pixels of the image, H W of a frame.
"""

from typing import NamedTuple

import numpy as np


class Motion(NamedTuple):
    """How far views may go."""

    zoom: tuple[float, float]  # least, most: share of the largest window that fits
    angle: float  # degrees to either side, at most


def read_motion(zoom: object, angle: object) -> Motion:
    """Checks the settings `data.stills.zoom` and `data.stills.angle`.

    Raises:
      ValueError: shares beyond 0 to 1, or an angle beyond 0 to 45.
    """
    try:
        low, high = (float(share) for share in zoom)  # type: ignore[attr-defined]
    except (TypeError, ValueError):
        low = high = np.nan
    if not 0.1 <= low <= high <= 1:
        expected = "(least, most) of 0.1 to 1"
        raise ValueError(f"data.stills.zoom: expected {expected}, got {zoom!r}")
    if not isinstance(angle, int | float) or not 0 <= angle <= 45:
        expected = "0 to 45 degrees"
        raise ValueError(f"data.stills.angle: expected {expected}, got {angle!r}")
    return Motion((low, high), float(angle))


def draw_views(rng: np.random.Generator, frames: int, motion: Motion) -> np.ndarray:
    """Draws the path of a window: float64 [T, 4].

    Place, angle and zoom follow one quadratic Bezier curve each, through a start, a
    bend and an end that are uniform; the curve stays within what these three span.

    Returns:
      x, y: place between the limits, -1 to 1; angle in radians; zoom.
    """
    turn = np.deg2rad(motion.angle)
    low = np.array([-1.0, -1.0, -turn, motion.zoom[0]])
    high = np.array([1.0, 1.0, turn, motion.zoom[1]])
    start, bend, end = rng.uniform(low, high, (3, 4))
    t = np.linspace(0.0, 1.0, frames)[:, None]
    return (1 - t) ** 2 * start + 2 * t * (1 - t) * bend + t**2 * end


def image_extent(views: np.ndarray, size: tuple[int, int]) -> tuple[int, int]:
    """Height and width to resize the image to, so that views are about 1 : 1.

    Args:
      views: float [T, 4] of `draw_views`.
      size: H, W in pixels.
    """
    zoom = float(views[:, 3].mean())
    return max(1, round(size[0] / zoom)), max(1, round(size[1] / zoom))


def view_matrices(
    views: np.ndarray, image: tuple[int, int], size: tuple[int, int]
) -> np.ndarray:
    """From points of a frame to points of the image: float64 [T, 2, 3].

    Points are x, y in pixels; the pixel in column c covers [c, c + 1).

    Args:
      views: float [T, 4] of `draw_views`.
      image: h, w in pixels.
      size: H, W in pixels.
    """
    x, y, angle, zoom = views.T
    (h, w), (H, W) = image, size
    cos, sin = np.cos(angle), np.sin(angle)
    # Sides of the upright box around the turned frame, one image pixel per pixel.
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


def take_views(image, masks, matrices, size):
    """Frames and masks of a clip, as tensors: pixels bilinear, masks nearest.

    Args:
      image: uint8 [h, w, 3].
      masks: bool [N, h, w].
      matrices: float32 [T, 2, 3] of `view_matrices`.
      size: int32 [2], H and W.

    Returns:
      uint8 [T, H, W, 3] and bool [N, T, H, W].
    """
    import tensorflow as tf

    # The op counts pixels by their centres.
    turned, shift = matrices[..., :2], matrices[..., 2:]
    half = tf.constant([[0.5], [0.5]])
    shift = shift + turned @ half - half
    rows = tf.concat([turned, shift], -1)
    frames = tf.shape(rows)[0]
    flat = tf.concat([tf.reshape(rows, [frames, 6]), tf.zeros([frames, 2])], 1)

    def warp(layers, interpolation):
        return tf.raw_ops.ImageProjectiveTransformV3(
            images=tf.repeat(layers[None], frames, axis=0),
            transforms=flat,
            output_shape=size,
            interpolation=interpolation,
            fill_mode="NEAREST",  # half a pixel at the border
            fill_value=0.0,
        )

    pixels = warp(tf.cast(image, tf.float32), "BILINEAR")
    # One layer more: the op refuses images without any.
    layers = tf.pad(tf.cast(masks, tf.uint8), [[0, 1], [0, 0], [0, 0]])
    moved = warp(tf.transpose(layers, [1, 2, 0]), "NEAREST")[..., :-1]
    moved = tf.cast(tf.transpose(moved, [3, 0, 1, 2]), tf.bool)
    return tf.cast(tf.clip_by_value(pixels + 0.5, 0.0, 255.0), tf.uint8), moved
