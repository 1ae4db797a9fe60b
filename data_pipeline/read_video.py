"""Resizes frames for evaluation and prediction, in NumPy and Pillow."""

import numpy as np
from PIL import Image

from data_pipeline.clip_sampling import resized_size


def fit_frame(
    frame: np.ndarray, short_side: int, long_side: int, size: tuple[int, ...] = ()
) -> np.ndarray:
    """Resizes a frame with Pillow's bilinear filter, as Mask2Former does.

    Args:
      frame: uint8 [h, w, 3].
      short_side, long_side: pixels; see `clip_sampling.resized_size`.
      size: height and width in pixels to stretch the frame to instead; () = unused.
    """
    before = frame.shape[:2]
    height, width = size or resized_size(
        before[0], before[1], short_side, long_side=long_side, canvas=None
    )
    if (height, width) == before:
        return frame
    image = Image.fromarray(frame)
    return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))
