"""Run-length masks in bulk: checked and counted without painting a pixel.

A compressed mask is a string of signed numbers, 5 bits a character, low bits first;
from the fourth number on each is the difference to the one two places earlier. Source:
rleToString and rleFrString in maskApi.c of the COCO API.
"""

import numpy as np

ALPHABET = bytes(range(48, 112))
# Counts fit in 32 bits, differences in 33: seven characters carry 35.
MAX_CHARACTERS = 7


class RleError(ValueError):
    """A mask that is not sound; `index` is its place in the list given."""

    def __init__(self, index: int, reason: str):
        super().__init__(reason)
        self.index = index


def checked_areas(strings: list[bytes], pixels: np.ndarray) -> np.ndarray:
    """Foreground pixels of compressed masks, after a check that each is sound.

    Args:
      strings: compressed counts of n masks.
      pixels: int64[n], height x width of each.

    Returns:
      int64[n], pixels.

    Raises:
      RleError: characters outside the code, a number cut off, a negative run, or runs
        that do not add up to the mask's size.
    """
    if not strings:
        return np.zeros(0, np.int64)
    _check_characters(strings)
    counts, first, position = _counts(strings)
    owner = np.repeat(np.arange(len(strings)), np.diff(np.append(first, len(counts))))
    bad = (counts < 0) | (counts > pixels[owner])
    if bad.any():
        worst = int(np.flatnonzero(bad)[0])
        raise RleError(int(owner[worst]), f"a run of {counts[worst]} pixels")
    totals = np.add.reduceat(counts, first)
    if (totals != pixels).any():
        index = int(np.flatnonzero(totals != pixels)[0])
        raise RleError(index, f"runs of {totals[index]} pixels in all")
    return np.add.reduceat(np.where(position & 1, counts, 0), first)


def _check_characters(strings: list[bytes]) -> None:
    for index, string in enumerate(strings):
        if not string:
            raise RleError(index, "an empty string")
        if string.translate(None, ALPHABET):
            raise RleError(index, "characters outside the code")
        if (string[-1] - 48) & 32:
            raise RleError(index, "a string cut off within a number")


def _counts(strings: list[bytes]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All runs in one array, where each mask's begin, and the place within its mask."""
    digits = np.frombuffer(b"".join(strings), np.uint8) - np.uint8(48)
    last = digits < 32  # no continuation bit: the number ends here
    ends = np.flatnonzero(last)
    lengths = np.diff(ends, prepend=-1)
    sizes = np.fromiter(map(len, strings), np.int64, len(strings))
    begins = np.cumsum(sizes) - sizes
    first = np.searchsorted(ends, begins)
    if lengths.max() > MAX_CHARACTERS:
        index = np.searchsorted(begins, ends[lengths.argmax()], side="right") - 1
        raise RleError(int(index), "a number of more than 35 bits")
    top = digits[ends].astype(np.int64)
    values = top - ((top & 16) << 1)  # sign of the highest five bits
    for back in range(1, int(lengths.max())):
        longer = np.flatnonzero(lengths > back)
        values[longer] = (values[longer] << 5) | (digits[ends[longer] - back] & 31)
    position = np.arange(len(values)) - np.repeat(
        first, np.diff(np.append(first, len(values)))
    )
    return _undo_differences(values, position), first, position


def _undo_differences(values: np.ndarray, position: np.ndarray) -> np.ndarray:
    """Sums up 1, 3, 5, .. and 2, 4, 6, .. of every mask; number 0 stands alone."""
    for start in (1, 2):
        chain = np.flatnonzero((position >= start) & ((position & 1) == (start & 1)))
        if not len(chain):
            continue
        sums = np.cumsum(values[chain])
        heads = np.flatnonzero(position[chain] == start)
        before = sums[heads] - values[chain[heads]]
        values[chain] = sums - np.repeat(before, np.diff(np.append(heads, len(chain))))
    return values
