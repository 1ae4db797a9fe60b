"""Collects the masks of an annotation file, in any form, as run lengths.

A frame's segmentation is null, run lengths (compressed or not) or a list of polygons.
"""

from collections.abc import Callable, Iterator
from math import isfinite

import numpy as np

from data_pipeline.errors import DataError, Fail, Report, attempt
from vis_jax.formats.rle import (
    RleError,
    Runs,
    areas_of_runs,
    concatenate_runs,
    runs_from_lists,
    runs_from_strings,
    string_from_polygons,
)

# Limits per frame mask, far above those of annotators and models; reading takes 100
# bytes per character of run lengths and 100 per pixel of an outline.
MAX_COUNTS = 2**22  # characters, or run lengths in a list
MAX_NUMBERS = 2**18  # coordinates of all polygons
MAX_OUTLINE = 2**22  # pixels
_MOST_IN_COUNT = 7  # characters


class MaskTable:
    """The masks read so far, numbered in reading order."""

    def __init__(self) -> None:
        self._parts: list[Runs] = []
        self._count = 0

    def add(
        self, entries: list, *, height: int, width: int, fail: Fail, report: Report
    ) -> np.ndarray:
        """Adds the segmentations of one track.

        Args:
          entries: one per frame, as in the file.
          height, width: size of the video in pixels.
          fail: makes the error from `field`, `expected` and `got`.
          report: receives each entry that is not a mask of this size.

        Returns:
          Mask index per frame: int32 [T]; -1 where it is empty or unreadable.
        """
        strings: dict[int, bytes] = {}
        lists: dict[int, list] = {}
        for frame, entry in enumerate(entries):
            if entry is None:
                continue
            here = _at(fail, frame)
            counts = attempt(report, _read_entry, entry, height, width, here)
            if isinstance(counts, bytes):
                strings[frame] = counts
            elif counts is not None:
                lists[frame] = counts
        index = np.full(len(entries), -1, np.int32)
        for read, masks in ((runs_from_strings, strings), (runs_from_lists, lists)):
            for some in _portions(masks):
                self._append(read, some, height * width, index, fail, report)
        return index

    def runs(self) -> Runs:
        """Returns all masks."""
        return concatenate_runs(self._parts)

    def _append(
        self,
        read: Callable[..., Runs],
        masks: dict,
        pixels: int,
        index: np.ndarray,
        fail: Fail,
        report: Report,
    ) -> None:
        try:
            runs = read(list(masks.values()), pixels)
        except RleError:
            masks = {
                frame: counts
                for frame, counts in masks.items()
                if attempt(report, _read_one, read, counts, pixels, _at(fail, frame))
            }
            if not masks:
                return
            runs = read(list(masks.values()), pixels)
        frames = list(masks)
        seen = areas_of_runs(runs) > 0
        index[frames] = np.where(seen, self._count + np.arange(len(frames)), -1)
        self._parts.append(runs)
        self._count += len(frames)


def _portions(masks: dict) -> Iterator[dict]:
    """Yields the masks of a track in batches that respect `MAX_COUNTS`."""
    portion: dict = {}
    size = 0
    for frame, counts in masks.items():
        if portion and size + len(counts) > MAX_COUNTS:
            yield portion
            portion, size = {}, 0
        portion[frame] = counts
        size += len(counts)
    if portion:
        yield portion


def read_mask(entry: object, *, height: int, width: int, here: Callable) -> Runs:
    """Reads one mask: run lengths (compressed or not) or a list of polygons.

    Args:
      entry: as in the file.
      height, width: size of the frame in pixels.
      here: makes the error from field, expected and actual value.

    Raises:
      DataError: not a mask of this size.
    """
    counts = _read_entry(entry, height, width, here)
    read = runs_from_strings if isinstance(counts, bytes) else runs_from_lists
    return _read_one(read, counts, height * width, here)


def _at(fail: Fail, frame: int) -> Callable[[str, str, object], DataError]:
    """Returns a function that makes errors for a field of one frame's segmentation."""

    def here(field: str, expected: str, got: object) -> DataError:
        place = f"segmentations[{frame}]" + (f".{field}" if field else "")
        return fail(field=place, expected=expected, got=got)

    return here


def _read_one(
    read: Callable, counts: bytes | list, pixels: int, here: Callable
) -> Runs:
    """Reads a single mask, so that each of several defects is given its frame."""
    try:
        return read([counts], pixels)
    except RleError as error:
        raise here("counts", error.expected, error.got) from error


def _read_entry(entry: object, height: int, width: int, here: Callable) -> bytes | list:
    """Returns the run lengths of one frame: a compressed string, or a list."""
    if isinstance(entry, list):
        if entry and all(type(value) in (int, float) for value in entry):
            entry = [entry]  # one polygon, flat
        _check_polygons(entry, max(height, width), here)
        return string_from_polygons(entry, height=height, width=width)
    if not isinstance(entry, dict):
        raise here("", "null, run lengths or a list of polygons", entry)
    if entry.get("size") != [height, width]:
        expected = f"the video's [height, width], [{height}, {width}]"
        raise here("size", expected, entry.get("size", "nothing"))
    counts = entry.get("counts")
    if not isinstance(counts, str | list):
        raise here("counts", "a string or a list of run lengths", counts)
    # No more characters than runs, with an eighth of a pixel for those of long ones.
    most = min(height * width * 9 // 8 + 2 * _MOST_IN_COUNT, MAX_COUNTS)
    if len(counts) > most:
        unit = "characters" if isinstance(counts, str) else "run lengths"
        raise here("counts", f"at most {most} {unit}", len(counts))
    if isinstance(counts, str):
        return counts.encode("utf-8", "surrogatepass")
    return counts


def _check_polygons(polygons: list, side: int, here: Callable) -> None:
    if not polygons:
        raise here("", "at least one polygon, or null", "an empty list")
    total, outline = 0, 0.0
    for k, polygon in enumerate(polygons):
        size = len(polygon) if isinstance(polygon, list) else 0
        if size < 6 or size % 2:
            raise here(f"[{k}]", "a flat list x1, y1, x2, y2, .. of 3 points", polygon)
        total += size
        if total > MAX_NUMBERS:
            raise here("", f"at most {MAX_NUMBERS} numbers in all polygons", "more")
        for value in polygon:
            # An integer may be too large for a float.
            if type(value) is not int and not (
                type(value) is float and isfinite(value)
            ):
                raise here(f"[{k}]", "finite numbers", value)
            # Rasterising takes time and memory proportional to the outline.
            if not -side <= value <= 2 * side:
                expected = f"coordinates in pixels, {-side} to {2 * side}"
                raise here(f"[{k}]", expected, value)
        points = np.array(polygon, float).reshape(-1, 2)
        steps = np.abs(points - np.roll(points, 1, axis=0))
        outline += float(steps.max(1).sum())
        if outline > MAX_OUTLINE:
            expected = f"an outline of at most {MAX_OUTLINE} pixels"
            raise here("", expected, f"{outline:.0f} up to polygon {k}")
