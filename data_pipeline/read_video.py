"""Frames for evaluation and prediction: read, resize, pad. NumPy and Pillow only."""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from data_pipeline.clip_sampling import resized_size
from data_pipeline.datasets.dataset import Dataset


def read_clip(
    dataset: Dataset,
    index: int,
    frame_ids: Sequence[int] | np.ndarray,
    *,
    short_side: int,
    long_side: int,
    multiple: int = 32,
    canvas: tuple[int, int] | None = None,
) -> tuple[np.ndarray, tuple[int, int]]:
    """Reads frames of one video at test size.

    Args:
      dataset: where the video is.
      index: of the video.
      frame_ids: int [T].
      short_side, long_side: pixels; see `clip_sampling.resized_size`.
      multiple: sides of the canvas are multiples of it.
      canvas: height and width in pixels; None takes the smallest that fits.

    Returns:
      uint8 [T, H, W, 3] on the canvas, and height and width of the content.

    Raises:
      DataError: a frame that cannot be read; names file and video.
    """
    frames = dataset.read_frames(index, np.asarray(frame_ids))
    frames = resize_frames(frames, short_side, long_side, canvas=canvas)
    size = (frames.shape[1], frames.shape[2])
    return pad_frames(frames, multiple=multiple, canvas=canvas), size


def resize_frames(
    frames: np.ndarray,
    short_side: int,
    long_side: int,
    *,
    canvas: tuple[int, int] | None = None,
) -> np.ndarray:
    """Resizes frames with Pillow's bilinear filter, as Mask2Former does.

    Args:
      frames: uint8 [T, h, w, 3].
      short_side, long_side: pixels; see `clip_sampling.resized_size`.
      canvas: height and width in pixels that the result must not exceed.
    """
    height, width = resized_size(
        frames.shape[1],
        frames.shape[2],
        short_side,
        long_side=long_side,
        canvas=canvas,
    )
    if (height, width) == frames.shape[1:3]:
        return frames
    resized = np.empty((len(frames), height, width, 3), np.uint8)
    for target, frame in zip(resized, frames, strict=True):
        image = Image.fromarray(frame)
        image = image.resize((width, height), Image.Resampling.BILINEAR)
        target[:] = np.asarray(image)
    return resized


def pad_frames(
    frames: np.ndarray, *, multiple: int = 32, canvas: tuple[int, int] | None = None
) -> np.ndarray:
    """Puts frames [T, h, w, 3] at the top left of a canvas; the rest is zero.

    Args:
      frames: uint8.
      multiple: sides of the canvas are multiples of it, if no canvas is given.
      canvas: height and width in pixels.

    Raises:
      ValueError: the frames are larger than the canvas.
    """
    height, width = frames.shape[1:3]
    if canvas is None:
        canvas = (-(-height // multiple) * multiple, -(-width // multiple) * multiple)
    if height > canvas[0] or width > canvas[1]:
        raise ValueError(f"canvas: expected at least {(height, width)}, got {canvas}")
    bottom, right = canvas[0] - height, canvas[1] - width
    return np.pad(frames, [(0, 0), (0, bottom), (0, right), (0, 0)])
