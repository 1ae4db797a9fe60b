"""Frames for evaluation and prediction: read, resize, pad. NumPy and Pillow only."""

import numpy as np
from PIL import Image

from data_pipeline.clip_sampling import resized_size


def resize_frames(frames: np.ndarray, short_side: int, long_side: int) -> np.ndarray:
    """Resizes frames with Pillow's bilinear filter, as Mask2Former does.

    Args:
      frames: uint8 [T, h, w, 3].
      short_side, long_side: pixels; see `clip_sampling.resized_size`.
    """
    before = frames.shape[1:3]
    height, width = resized_size(
        before[0], before[1], short_side, long_side=long_side, canvas=None
    )
    if (height, width) == before:
        return frames
    resized = np.empty((len(frames), height, width, 3), np.uint8)
    for target, frame in zip(resized, frames, strict=True):
        image = Image.fromarray(frame)
        image = image.resize((width, height), Image.Resampling.BILINEAR)
        target[:] = np.asarray(image)
    return resized


def pad_frames(frames: np.ndarray, *, multiple: int = 32) -> np.ndarray:
    """Puts frames uint8 [T, h, w, 3] at the top left of a canvas; the rest is zero.

    Args:
      multiple: sides of the canvas, which is as small as can be, are multiples of it.
    """
    height, width = frames.shape[1:3]
    return np.pad(
        frames, [(0, 0), (0, -height % multiple), (0, -width % multiple), (0, 0)]
    )
