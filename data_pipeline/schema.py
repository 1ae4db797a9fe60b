"""Schema of a batch of clips: key, dtype, axes, meaning of the padding.

Axes: B clips, T frames, M instance slots, H W canvas pixels. Every array has a static
shape; `frame_valid`, `instance_valid`, `present` and `sizes` mark what is not padding.
"""

from typing import NamedTuple

import numpy as np


class Field(NamedTuple):
    """One array of a batch."""

    dtype: type
    axes: tuple[str | int, ...]
    meaning: str


BATCH = {
    "images": Field(np.uint8, ("B", "T", "H", "W", 3), "RGB; 0 in padding"),
    "frame_valid": Field(np.bool_, ("B", "T"), "False: padding after the last frame"),
    "sizes": Field(np.int32, ("B", 2), "height, width of the content, at top left"),
    "masks": Field(np.bool_, ("B", "M", "T", "H", "W"), "visible (modal) pixels"),
    "boxes": Field(np.float32, ("B", "M", "T", 4), "x1 y1 x2 y2, pixels; 0 if absent"),
    "present": Field(np.bool_, ("B", "M", "T"), "at least one pixel in this frame"),
    "labels": Field(np.int32, ("B", "M"), "0 .. K - 1, order of category ids"),
    "track_ids": Field(np.int32, ("B", "M"), "1, 2, .. within the video; 0 = padding"),
    "instance_valid": Field(np.bool_, ("B", "M"), "True: a real instance"),
}


def check_batch(batch: dict[str, np.ndarray], **sizes: int) -> None:
    """Raises ValueError unless `batch` follows the schema.

    Args:
      batch: arrays by name.
      sizes: required lengths of axes by letter, for example `B=8, T=2`.
    """
    if set(batch) != set(BATCH):
        raise ValueError(f"batch keys: expected {sorted(BATCH)}, got {sorted(batch)}")
    seen = dict(sizes)
    for key, field in BATCH.items():
        array = batch[key]
        if array.dtype != field.dtype:
            dtype = np.dtype(field.dtype).name
            raise ValueError(f"batch[{key!r}]: expected {dtype}, got {array.dtype}")
        if array.ndim != len(field.axes):
            raise ValueError(
                f"batch[{key!r}]: expected axes {field.axes}, got shape {array.shape}"
            )
        for axis, length in zip(field.axes, array.shape, strict=True):
            expected = axis if isinstance(axis, int) else seen.setdefault(axis, length)
            if length != expected:
                raise ValueError(
                    f"batch[{key!r}]: axis {axis} of {field.axes} has length {length},"
                    f" expected {expected}"
                )
    _check_padding(batch)


def _check_padding(batch: dict[str, np.ndarray]) -> None:
    """Checks that padding is empty and present instances have pixels and a box."""
    valid = batch["frame_valid"]
    if not valid[:, 0].all() or (valid[:, 1:] & ~valid[:, :-1]).any():
        raise ValueError("batch['frame_valid']: expected frames, then padding")
    if (batch["images"].any((2, 3, 4)) & ~valid).any():
        raise ValueError("batch['images']: pixels in a padded frame are not zero")
    allowed = batch["instance_valid"][..., None] & batch["frame_valid"][:, None, :]
    if (batch["present"] & ~allowed).any():
        raise ValueError("batch['present']: True in a padded slot or frame")
    if (batch["masks"].any((-1, -2)) != batch["present"]).any():
        raise ValueError("batch['masks']: pixels and `present` disagree")
    if ((batch["track_ids"] > 0) != batch["instance_valid"]).any():
        raise ValueError("batch['track_ids']: positive if and only if the slot is real")
    x1, y1, x2, y2 = np.moveaxis(batch["boxes"], -1, 0)
    if (((x2 > x1) & (y2 > y1)) != batch["present"]).any():
        raise ValueError("batch['boxes']: an area if and only if present")
    heights, widths = batch["sizes"].T
    rows = np.arange(batch["images"].shape[2]) >= heights[:, None]
    columns = np.arange(batch["images"].shape[3]) >= widths[:, None]
    outside = rows[:, :, None] | columns[:, None, :]
    if (batch["images"].any((1, -1)) & outside).any():
        raise ValueError("batch['images']: pixels outside `sizes` are not zero")
