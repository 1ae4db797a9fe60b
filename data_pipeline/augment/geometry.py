"""Crop, resize and flip as TensorFlow ops, consistent for pixels, masks and boxes.

Letters: h w pixels of the source video, H W pixels of the content after resizing.
"""

import tensorflow as tf


def source_positions(
    start: tf.Tensor | int, extent: tf.Tensor | int, size: tf.Tensor | int
) -> tf.Tensor:
    """Returns the source rows or columns of nearest-neighbour resizing: int32 [size].

    Target pixel i is centred at source position (i + 0.5) * extent / size, as in
    Pillow, but in integers: Pillow accumulates steps in floating point and can differ
    where a centre lies between two pixels.

    Args:
      start, extent: the cropped part of the source, in pixels.
      size: pixels after resizing.
    """
    target = tf.range(size, dtype=tf.int64)
    start, extent, size = (tf.cast(x, tf.int64) for x in (start, extent, size))
    return tf.cast(start + (2 * target + 1) * extent // (2 * size), tf.int32)


def crop_and_resize(frame: tf.Tensor, crop: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """Crops and resizes a frame bilinearly, with antialiasing.

    Equals Pillow's bilinear filter up to one grey level: Pillow rounds between passes.

    Args:
      frame: uint8 [h, w, 3].
      crop: int32 [4], top, left, height, width in source pixels.
      size: int32 [2], height and width of the result.

    Returns:
      uint8 [H, W, 3].
    """
    frame = tf.slice(frame, [crop[0], crop[1], 0], [crop[2], crop[3], 3])

    def resized() -> tf.Tensor:
        smooth = _resize_rows(_resize_rows(frame, size[0]), size[1])
        return tf.cast(tf.clip_by_value(smooth + 0.5, 0.0, 255.0), tf.uint8)

    return tf.cond(tf.reduce_all(crop[2:] == size), lambda: frame, resized)


def _resize_rows(image: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
    """Resizes axis 0 of [h, w, 3] and swaps the first two axes: float32 [w, rows, 3].

    Applied twice, it is a full resize. TensorFlow's kernel is slow with three channels
    and fast along the channel axis, so a whole row is passed as channels: same result
    in less than half the time.
    """
    height, width = tf.shape(image)[0], tf.shape(image)[1]
    lines = tf.reshape(image, [1, height, 1, 3 * width])
    lines = tf.image.resize(lines, [rows, 1], "bilinear", antialias=True)
    return tf.transpose(tf.reshape(lines, [rows, width, 3]), [1, 0, 2])


def resize_masks(masks: tf.Tensor, rows: tf.Tensor, columns: tf.Tensor) -> tf.Tensor:
    """Reads masks [M, T, h, w] at source rows and columns: [M, T, H, W]."""
    return tf.gather(tf.gather(masks, rows, axis=2), columns, axis=3)


def flip_clip(
    images: tf.Tensor, masks: tf.Tensor, flip: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Flips frames horizontally where `flip`, bool [T], is True.

    Args:
      images: [T, H, W, 3].
      masks: [M, T, H, W].
      flip: frames to flip.
    """

    def mirrored() -> tuple[tf.Tensor, tf.Tensor]:
        return tf.reverse(images, [2]), tf.reverse(masks, [3])

    def some() -> tuple[tf.Tensor, tf.Tensor]:
        new_images, new_masks = mirrored()
        return (
            tf.where(flip[:, None, None, None], new_images, images),
            tf.where(flip[:, None, None], new_masks, masks),
        )

    # Flipping all frames or none, the default, avoids a select per pixel.
    return tf.cond(
        tf.reduce_any(flip),
        lambda: tf.cond(tf.reduce_all(flip), mirrored, some),
        lambda: (images, masks),
    )
