"""Validates compressed masks in bulk and counts their pixels; code: see `rle`."""

import numpy as np

from vis_jax.formats.rle import MAX_CHARACTERS, RleError, run_lengths, signed_numbers

# Characters per chunk: some MB of arrays, and few calls.
CHUNK = 1 << 17

_LOWER = np.int64((1 << 32) - 1)
_SIGNS = np.int64(-(1 << 63) | 1 << 31)


def check_masks(masks: list[dict]) -> tuple[np.ndarray, int]:
    """Checks compressed masks and counts their foreground pixels.

    pycocotools reads past the end of a truncated string and never returns from masks
    whose runs do not add up, so nothing unchecked may reach it. It also stops comparing
    two masks at an empty run in the same place, so empty runs are removed from `masks`.

    Args:
      masks: n masks {"size": [height, width], "counts": bytes}, sizes as returned by
        `Checker.size`.

    Returns:
      int64[n] pixels, and the number of masks with empty runs between others.

    Raises:
      RleError: characters outside the code, a truncated or too long number, a negative
        run, or runs that do not add up to the mask's size.
    """
    strings = [mask["counts"] for mask in masks]
    sides = [mask["size"] for mask in masks]
    pixels = np.array([height * width for height, width in sides], np.int64)
    areas = np.zeros(len(strings), np.int64)
    sizes = np.fromiter(map(len, strings), np.int64, len(strings))
    chunk = np.cumsum(sizes) // CHUNK
    edges = [0, *(np.flatnonzero(np.diff(chunk)) + 1).tolist(), len(strings)]
    mended = 0
    for start, stop in zip(edges[:-1], edges[1:], strict=True):
        if start == stop:
            continue
        part = slice(start, stop)
        areas[part], interrupted = _areas(
            strings[part], sizes[part], pixels[part], start
        )
        for index in (start + np.flatnonzero(interrupted)).tolist():
            masks[index]["counts"] = _joined(strings[index], sides[index])
            mended += 1
    return areas, mended


def _areas(
    strings: list[bytes], sizes: np.ndarray, pixels: np.ndarray, offset: int
) -> tuple[np.ndarray, np.ndarray]:
    """Computes the areas of one chunk, whose first string has index `offset`.

    Returns:
      int64[n] pixels, and bool[n]: masks with empty runs between others.
    """

    def error(index: int, reason: str) -> RleError:
        expected = f"counts that add up to {pixels[index]}"
        return RleError(offset + index, expected, reason)

    if not sizes.all():
        raise error(int(sizes.argmin()), "an empty string")
    raw = np.frombuffer(b"".join(strings), np.uint8)
    stops = np.cumsum(sizes)
    bad = (raw - np.uint8(48)) > 63
    going_on = raw >= 80
    bad[stops - 1] |= going_on[stops - 1]  # the last number goes on
    if bad.any():
        index = int(np.searchsorted(stops, np.flatnonzero(bad)[0], side="right"))
        raise error(index, "a string cut off or with foreign characters")
    more = np.searchsorted(np.flatnonzero(going_on), stops)
    numbers = sizes - np.diff(more, prepend=0)
    areas, sound, interrupted = _sums(strings, numbers, pixels)
    if not sound.all():
        index = int(sound.argmin())
        raise error(index, _defect(strings[index]))
    return areas, interrupted


def _defect(string: bytes) -> str:
    """Describes the defect of a mask's runs."""
    _, too_long = signed_numbers(string)
    if too_long.size:
        return f"a number of more than {MAX_CHARACTERS} characters"
    return f"runs that add up to {run_lengths(string).sum()}, or a negative one"


def _sums(
    strings: list[bytes], numbers: np.ndarray, pixels: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns foreground pixels, validity, and presence of empty inner runs.

    The two runs of a pair are the halves of one 64-bit integer, which halves the number
    of additions. A carry from the lower to the upper half leaves bit 31 set: a number
    has at most 30 bits, so no sum passes from below 0 to 2**32, or from 2**31 to 2**32,
    in one step.

    Args:
      strings: checked characters.
      numbers: int64[n], how many numbers each holds; odd ones are filled up with 0.
      pixels: int64[n], what the runs have to add up to.

    Returns:
      int64[n], bool[n], bool[n].
    """
    odd = (numbers & 1).astype(bool)
    fill = [b"0" if o else b"" for o in odd.tolist()]
    text = b"".join([part for pair in zip(strings, fill, strict=True) for part in pair])
    counts = (numbers + 1) >> 1
    last = np.cumsum(counts) - 1
    first = last - counts + 1
    pairs, too_long = _pairs(text)
    opening = pairs[first] + (1 << 31) >> 32  # rounded: the lower half may be negative
    pairs[first] -= opening << 32
    # A cumulative sum restarted at every mask.
    sums = np.add.reduceat(pairs, first)
    pairs[first[1:]] -= sums[:-1]
    np.cumsum(pairs, out=pairs)
    negative = (np.bitwise_or.reduceat(pairs, first) & _SIGNS) != 0
    foreground = pairs & _LOWER
    pairs >>= 32  # background
    foreground[last[odd]] = 0
    areas = np.add.reduceat(foreground, first)
    totals = np.add.reduceat(pairs, first) + areas + opening
    wrong = (totals != pixels) | negative | (opening < 0)
    wrong[np.searchsorted(first, too_long >> 1, side="right") - 1] = True
    interrupted = np.zeros(len(strings), bool)
    full = len(pairs) - np.count_nonzero(pairs) == len(strings)
    if not full or len(pairs) - np.count_nonzero(foreground) != odd.sum():
        empty = pairs == 0
        empty[first] = False  # a mask may begin with foreground
        without = foreground == 0
        without[last[odd]] = False
        interrupted = np.logical_or.reduceat(empty | without, first)
    return areas, ~wrong, interrupted


def _pairs(text: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of `signed_numbers`, an even number of them: (first << 32) + second."""
    values, too_long = signed_numbers(text)
    pairs = values[0::2].astype(np.int64)
    pairs <<= 32
    pairs += values[1::2]
    return pairs, too_long


def _joined(string: bytes, size: list[int]) -> bytes:
    """Removes the empty runs of a valid mask."""
    from pycocotools import mask as coco_mask

    counts = [0]
    for place, run in enumerate(run_lengths(string).tolist()):
        if len(counts) % 2 != place % 2:  # of the same kind as the last
            counts[-1] += run
        elif run:
            counts.append(run)
    return coco_mask.frPyObjects({"size": size, "counts": counts}, *size)["counts"]
