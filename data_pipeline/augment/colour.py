"""Colour jitter: brightness, contrast and saturation, the same for all frames.

Implemented in NumPy and as TensorFlow ops, with equal results.
"""

import numpy as np

from data_pipeline.clip_source import Tensor

GREY = (0.299, 0.587, 0.114)  # ITU-R BT.601, as detectron2's RandomSaturation


def jitter(images: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """Jitters brightness, then contrast, then saturation.

    As detectron2's `RandomBrightness`, `RandomContrast` and `RandomSaturation`: blends
    the image with black, its mean, and its greyscale version.

    Deviation: detectron2 rounds to uint8 after each of the three; here once.

    Args:
      images: uint8 [T, H, W, 3], without padding.
      factors: float32 [3]; 1 leaves the image as it is.

    Returns:
      uint8 [T, H, W, 3].
    """
    # Integer sums are exact in any order.
    mean = np.float32(images.sum(dtype=np.int64) / images.size)
    mixed = _mix(images.astype(np.float32), mean, factors.astype(np.float32))
    return np.clip(np.rint(mixed), 0, 255).astype(np.uint8)


def jitter_graph(images: Tensor, factors: Tensor) -> Tensor:
    """Like `jitter`, for tensors: uint8 [T, H, W, 3], float32 [3]."""
    import tensorflow as tf

    total = tf.reduce_sum(tf.cast(images, tf.int64))
    count = tf.size(images, out_type=tf.int64)
    mean = tf.cast(total / count, tf.float32)
    mixed = _mix(tf.cast(images, tf.float32), mean, factors)
    return tf.cast(tf.clip_by_value(tf.round(mixed), 0, 255), tf.uint8)


def _mix(pixels: Tensor, mean: Tensor, factors: Tensor) -> Tensor:
    """Blends float32 arrays or tensors."""
    brightness, contrast, saturation = factors[0], factors[1], factors[2]
    pixels = pixels * brightness
    mean = mean * brightness
    pixels = (pixels - mean) * contrast + mean
    red, green, blue = (np.float32(share) for share in GREY)
    grey = pixels[..., 0:1] * red + pixels[..., 1:2] * green + pixels[..., 2:3] * blue
    return (pixels - grey) * saturation + grey
