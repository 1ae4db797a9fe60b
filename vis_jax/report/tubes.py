"""Encodes tracks for the page: RLE masks of the shown frames at display size."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from vis_jax.formats.rle import run_lengths
from vis_jax.formats.tracks import TruthVideo
from vis_jax.visualize.colours import track_colour

SIDE = 640  # maximum pixels of a shown frame's longer side
VIDEO_BYTES = 4_000_000  # maximum for the tracks of one video
MAX_FRAMES = 150  # longer videos show every 2nd, 3rd, .. frame

# Replaces characters that JSON or HTML would escape by others outside "0" .. "o".
TO_PAGE = str.maketrans("<>\\", "!#$")


class ShownFrames(NamedTuple):
    """Shown frames of a video, and their size."""

    height: int  # pixels
    width: int
    step: int  # shows every step-th frame, from the first
    num_frames: int  # shown

    @property
    def frames(self) -> range:
        """Indices of the shown frames in the video."""
        return range(0, self.num_frames * self.step, self.step)


def make_view(video: TruthVideo, length: int, most: int = MAX_FRAMES) -> ShownFrames:
    """Chooses the shown frames of a video, and their size.

    Args:
      video: with height and width.
      length: length of the video in frames; 0 counts as 1.
      most: maximum number of shown frames.
    """
    length = max(1, length)
    height, width = shown_size(video.height, video.width)
    step = max(1, -(-length // most))
    return ShownFrames(height, width, step, -(-length // step))


def shown_size(height: int, width: int) -> tuple[int, int]:
    """Returns height and width of a shown frame: at most `SIDE` pixels per side."""
    scale = min(1.0, SIDE / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def view_entry(view: ShownFrames) -> dict:
    """Returns the JSON fields with the number, step and size of shown frames."""
    return {
        "height": view.height,
        "width": view.width,
        "step": view.step,
        "frames": view.num_frames,
    }


def colour_text(number: int) -> str:
    """Returns the colour of a track in CSS."""
    return "#{:02x}{:02x}{:02x}".format(*track_colour(number))


def pack_track(segmentations: Sequence[dict | None], view: ShownFrames) -> dict:
    """Encodes the masks of a track in the shown frames.

    Args:
      segmentations: RLE {"size": [H, W], "counts": bytes} or None for each frame.
      view: the shown frames.

    Returns:
      `start`: index of the first shown frame with a mask; `masks`: a string for each
      shown frame up to the last mask, 0 for frames without a mask.
    """
    shown = [segmentations[t] for t in view.frames if t < len(segmentations)]
    masks = [pack_mask(rle, view) if rle else 0 for rle in shown]
    present = [i for i, mask in enumerate(masks) if mask]
    if not present:
        return {"start": 0, "masks": []}
    return {"start": present[0], "masks": masks[present[0] : present[-1] + 1]}


def pack_mask(rle: dict, view: ShownFrames) -> str | int:
    """Returns the RLE of a mask at the shown size as a string; 0 if it is empty."""
    from pycocotools import mask as coco_mask

    size = (view.height, view.width)
    if tuple(rle["size"]) != size:
        smaller = rle["size"][0] >= size[0] and rle["size"][1] >= size[1]
        rle = _sampled(rle, size) if smaller else _resized(rle, size)
    if not coco_mask.area(rle):
        return 0
    return rle["counts"].decode().translate(TO_PAGE)


def _places(new: int, old: int) -> np.ndarray:
    """Returns the source rows or columns for `new` resized ones."""
    return np.arange(new) * old // new


def _resized(rle: dict, size: tuple[int, int]) -> dict:
    """Resizes an RLE mask by nearest-neighbour sampling."""
    from pycocotools import mask as coco_mask

    pixels = coco_mask.decode(rle)
    rows, columns = map(_places, size, pixels.shape)
    return coco_mask.encode(np.asfortranarray(pixels[rows[:, None], columns]))


def _sampled(rle: dict, size: tuple[int, int]) -> dict:
    """Like `_resized`, for a size that is not larger, without decoding the mask.

    A run ends before the first sampled pixel past its end.
    """
    from pycocotools import mask as coco_mask

    height, width = size
    rows, columns = map(_places, size, rle["size"])
    ends = np.cumsum(run_lengths(rle["counts"]), dtype=np.int64)
    column, row = np.divmod(ends, rle["size"][0])
    before = np.searchsorted(columns, column)
    inside = columns[np.minimum(before, width - 1)] == column
    places = before * height + np.where(inside, np.searchsorted(rows, row), 0)
    # An even number of runs that end at one pixel changes nothing there.
    changes, times = np.unique(places, return_counts=True)
    changes = changes[(times % 2 == 1) & (changes < height * width)]
    counts = np.diff(changes, prepend=0, append=height * width).tolist()
    return coco_mask.frPyObjects({"size": [*size], "counts": counts}, *size)


def runs(values: Sequence[int | None]) -> list[list[int]]:
    """Returns [first, end, value] of each run of equal values, skipping None."""
    found: list[list[int]] = []
    for t, value in enumerate(values):
        if value is None:
            continue
        if found and found[-1][1] == t and found[-1][2] == value:
            found[-1][1] = t + 1
        else:
            found.append([t, t + 1, value])
    return found
