"""Run-length masks in bulk: checked and counted without painting a pixel.

A compressed mask is a string of signed numbers, 5 bits a character, low bits first;
from the fourth number on each is the difference to the one two places earlier. Source:
rleToString and rleFrString in maskApi.c of the COCO API.
"""

import numpy as np

# A difference of two runs below 2**30 pixels takes 31 bits: seven characters.
MAX_CHARACTERS = 7
# Strings handled at once: the arrays stay in the cache of a core.
CHUNK = 1 << 18


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
    going_on = np.searchsorted(np.flatnonzero(raw >= 80), stops)
    numbers = sizes - np.diff(going_on, prepend=0)
    background, foreground, first = _runs(strings, numbers, offset)
    areas = np.add.reduceat(foreground, first, dtype=np.int64)
    totals = areas + np.add.reduceat(background, first, dtype=np.int64)
    wrong = totals != pixels
    if min(background.min(), foreground.min()) < 0:
        negative = (background < 0) | (foreground < 0)
        wrong = np.logical_or.reduceat(negative, first)
    if wrong.any():
        index = int(wrong.argmax())
        raise RleError(offset + index, f"runs that add up to {totals[index]}")
    return areas


def _runs(
    strings: list[bytes], numbers: np.ndarray, offset: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Background runs, the foreground runs after each, the first pair of each mask.

    The runs are int32, modulo 2**32 as in pycocotools: if none is negative here and
    they add up, they are what pycocotools reads.

    Args:
      strings: checked characters.
      numbers: int64[n], how many numbers each holds; odd ones are filled up with 0.
    """
    odd = (numbers & 1).astype(bool)
    filled = [s + b"0" if o else s for s, o in zip(strings, odd.tolist(), strict=True)]
    pairs = (numbers + 1) >> 1
    last = np.cumsum(pairs) - 1
    first = last - pairs + 1
    values = _numbers(b"".join(filled), first, offset)
    background, foreground = values[0::2].copy(), values[1::2].copy()
    # Undo the differences: two running sums, over foreground runs from the first and
    # over background runs from the second, which start anew in every mask.
    opening = background[first]
    background[first] = 0
    for runs in (background, foreground):
        sums = np.add.reduceat(runs, first, dtype=np.int32)
        runs[first[1:]] -= sums[:-1]
        np.cumsum(runs, out=runs)
    background[first] = opening
    foreground[last[odd]] = 0
    return background, foreground, first


def _numbers(text: bytes, first: np.ndarray, offset: int) -> np.ndarray:
    """The signed numbers of checked strings in a row: int32, modulo 2**32."""
    digits = np.frombuffer(text, np.uint8) - np.uint8(48)
    final = digits < 32
    # The last five bits carry the sign: 0 .. 31 stands for 0 .. 15, -16 .. -1.
    values = ((digits ^ 16).view(np.int8) - np.int8(16))[final].astype(np.int32)
    # Nearly all numbers have one character; the others take their further bits from
    # the characters before.
    going_on = np.flatnonzero(~final)
    before = np.flatnonzero(final[going_on + 1])
    place = going_on[before]
    index = place - before
    for _ in range(MAX_CHARACTERS - 1):
        if not len(index):
            break
        values[index] = (values[index] << 5) | (digits[place] & 31)
        place -= 1
        more = (place >= 0) & ~final[place]
        index, place = index[more], place[more]
    if len(index):
        mask = int(np.searchsorted(first, index[0] >> 1, side="right")) - 1
        raise RleError(offset + mask, "a number of more than 35 bits")
    return values
