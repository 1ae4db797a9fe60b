"""Run-length masks in bulk: checked and counted without painting a pixel.

A compressed mask is a string of signed numbers, 5 bits a character, low bits first;
from the fourth number on each is the difference to the one two places earlier. Source:
rleToString and rleFrString in maskApi.c of the COCO API.
"""

import numpy as np

# A difference of two runs below 2**30 pixels takes 31 bits: seven characters.
MAX_CHARACTERS = 7
# Strings handled at once: the arrays stay in the cache of a core.
CHUNK = 1 << 17


class RleError(ValueError):
    """A mask that is not sound; `index` is its place in the list given."""

    def __init__(self, index: int, reason: str):
        super().__init__(reason)
        self.index = index


def checked_areas(strings: list[bytes], pixels: np.ndarray) -> np.ndarray:
    """Foreground pixels of compressed masks, after a check that each is sound.

    pycocotools reads past the end of a string that is cut off, and never returns from
    masks whose runs do not add up: nothing unchecked may reach it.

    Args:
      strings: compressed counts of n masks.
      pixels: int64[n], height x width of each, below 2**30.

    Returns:
      int64[n], pixels.

    Raises:
      RleError: characters outside the code, a number cut off, a negative run, or runs
        that do not add up to the mask's size.
    """
    areas = np.zeros(len(strings), np.int64)
    sizes = np.fromiter(map(len, strings), np.int64, len(strings))
    chunk = np.cumsum(sizes) // CHUNK
    edges = [0, *(np.flatnonzero(np.diff(chunk)) + 1).tolist(), len(strings)]
    for start, stop in zip(edges[:-1], edges[1:], strict=True):
        if start < stop:
            part = slice(start, stop)
            areas[part] = _areas(strings[part], sizes[part], pixels[part], start)
    return areas


def _areas(
    strings: list[bytes], sizes: np.ndarray, pixels: np.ndarray, offset: int
) -> np.ndarray:
    """`checked_areas` of one chunk, whose first string has the index `offset`."""
    if not sizes.all():
        raise RleError(offset + int(sizes.argmin()), "an empty string")
    raw = np.frombuffer(b"".join(strings), np.uint8)
    stops = np.cumsum(sizes)
    bad = (raw < 48) | (raw > 111)
    bad[stops - 1] |= raw[stops - 1] >= 80  # the last number goes on
    if bad.any():
        index = int(np.searchsorted(stops, np.flatnonzero(bad)[0], side="right"))
        raise RleError(offset + index, "a string cut off or with foreign characters")
    numbers = np.add.reduceat(raw < 80, stops - sizes, dtype=np.int64)
    runs, first = _runs(strings, numbers, offset)
    sums = np.add.reduceat(runs, first, axis=0)
    totals = sums.sum(1)
    wrong = totals != pixels
    # No run is above 2**31 here, so sums of sound length cannot wrap around.
    if runs.min() < 0 or runs.max() > 1 << 31:
        outside = ((runs < 0) | (runs > 1 << 31)).any(1)
        wrong = np.logical_or.reduceat(outside, first)
    if wrong.any():
        index = int(wrong.argmax())
        raise RleError(offset + index, f"runs that add up to {totals[index]}")
    return sums[:, 1]


def _runs(
    strings: list[bytes], numbers: np.ndarray, offset: int
) -> tuple[np.ndarray, np.ndarray]:
    """Runs as rows (background, foreground), and the first row of each mask.

    Args:
      strings: checked characters.
      numbers: int64[n], how many numbers each holds; odd ones are filled up with 0.
    """
    odd = (numbers & 1).astype(bool)
    filled = [s + b"0" if o else s for s, o in zip(strings, odd.tolist(), strict=True)]
    rows = (numbers + 1) >> 1
    last = np.cumsum(rows) - 1
    first = last - rows + 1
    runs = _numbers(b"".join(filled), first, offset).reshape(-1, 2)
    # Undo the differences: two running sums, over foreground runs from the first and
    # over background runs from the second, which start anew in every mask.
    opening = runs[first, 0].copy()
    runs[first, 0] = 0
    sums = np.add.reduceat(runs, first, axis=0)
    runs[first[1:]] -= sums[:-1]
    np.cumsum(runs, axis=0, out=runs)
    runs[first, 0] = opening
    runs[last[odd], 1] = 0
    return runs, first


def _numbers(text: bytes, first: np.ndarray, offset: int) -> np.ndarray:
    """The signed numbers of checked strings in a row: int64."""
    digits = np.frombuffer(b"0" + text, np.uint8) - np.uint8(48)
    ends = np.flatnonzero(digits < 32)[1:]
    # The last five bits carry the sign: 0 .. 31 stands for 0 .. 15, -16 .. -1.
    values = ((digits[ends] ^ 16).view(np.int8) - 16).astype(np.int64)
    index = np.flatnonzero(digits[ends - 1] >= 32)
    place = ends[index] - 1
    for _ in range(MAX_CHARACTERS - 1):
        if not len(index):
            break
        values[index] = (values[index] << 5) | (digits[place] & 31)
        place -= 1
        more = digits[place] >= 32
        index, place = index[more], place[more]
    if len(index):
        mask = int(np.searchsorted(first, index[0] >> 1, side="right")) - 1
        raise RleError(offset + mask, "a number of more than 35 bits")
    return values
