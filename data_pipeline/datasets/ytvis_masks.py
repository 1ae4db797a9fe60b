"""Collects the masks of an annotation file as run lengths, in whatever form they come.

A frame's segmentation is null, run lengths (compressed or not) or a list of polygons.
"""

from collections.abc import Callable
from math import isfinite

import numpy as np

from data_pipeline.errors import DataError
from data_pipeline.rle import (
    RleError,
    Runs,
    areas_of_runs,
    concatenate_runs,
    runs_from_lists,
    runs_from_strings,
    string_from_polygons,
)

Fail = Callable[..., DataError]


class MaskTable:
    """The masks read so far, numbered in the order of their reading."""

    def __init__(self) -> None:
        self._parts: list[Runs] = []
        self._count = 0

    def add(self, entries: list, *, height: int, width: int, fail: Fail) -> np.ndarray:
        """Adds the segmentations of one track.

        Args:
          entries: one for each frame, as in the file.
          height, width: of the video, in pixels.
          fail: makes the error, given `field`, `expected` and `got`.

        Returns:
          The number of each frame's mask: int32 [T]; -1 where there are no pixels.

        Raises:
          DataError: an entry that is no mask of this size.
        """
        strings: dict[int, bytes] = {}
        lists: dict[int, list] = {}
        for frame, entry in enumerate(entries):
            if entry is None:
                continue
            here = _at(fail, frame)
            if isinstance(entry, list):
                _check_polygons(entry, max(height, width), here)
                text = string_from_polygons(entry, height=height, width=width)
                strings[frame] = text
                continue
            counts = _counts(entry, height, width, here)
            if isinstance(counts, str):
                strings[frame] = counts.encode()
            else:
                lists[frame] = counts
        index = np.full(len(entries), -1, np.int32)
        for read, masks in ((runs_from_strings, strings), (runs_from_lists, lists)):
            if masks:
                self._append(read, masks, height * width, index, fail)
        return index

    def runs(self) -> Runs:
        """All masks."""
        return concatenate_runs(self._parts)

    def _append(
        self,
        read: Callable[..., Runs],
        masks: dict,
        pixels: int,
        index: np.ndarray,
        fail: Fail,
    ) -> None:
        frames = list(masks)
        try:
            runs = read(list(masks.values()), pixels)
        except RleError as error:
            here = _at(fail, frames[error.index])
            raise here("counts", error.expected, error.got) from error
        seen = areas_of_runs(runs) > 0
        index[frames] = np.where(seen, self._count + np.arange(len(frames)), -1)
        self._parts.append(runs)
        self._count += len(frames)


def _at(fail: Fail, frame: int) -> Callable[[str, str, object], DataError]:
    """The error for a field of one frame's segmentation."""

    def here(field: str, expected: str, got: object) -> DataError:
        place = f"segmentations[{frame}]" + (f".{field}" if field else "")
        return fail(field=place, expected=expected, got=got)

    return here


def _counts(entry: object, height: int, width: int, here: Callable) -> str | list:
    if not isinstance(entry, dict):
        raise here("", "null, run lengths or a list of polygons", entry)
    if entry.get("size") != [height, width]:
        expected = f"the video's [height, width], [{height}, {width}]"
        raise here("size", expected, entry.get("size", "nothing"))
    counts = entry.get("counts")
    if isinstance(counts, str | list):
        return counts
    raise here("counts", "a string or a list of run lengths", counts)


def _check_polygons(polygons: list, side: int, here: Callable) -> None:
    if not polygons:
        raise here("", "at least one polygon, or null", "an empty list")
    for k, polygon in enumerate(polygons):
        size = len(polygon) if isinstance(polygon, list) else 0
        if size < 6 or size % 2:
            raise here(f"[{k}]", "a flat list x1, y1, x2, y2, .. of 3 points", polygon)
        for value in polygon:
            if type(value) not in (int, float) or not isfinite(value):
                raise here(f"[{k}]", "finite numbers", value)
            # Drawing takes time and memory in proportion to the outline.
            if not -side <= value <= 2 * side:
                expected = f"coordinates in pixels, {-side} to {2 * side}"
                raise here(f"[{k}]", expected, value)
