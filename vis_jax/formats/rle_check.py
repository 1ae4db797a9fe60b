"""Validates compressed masks in bulk and counts their pixels; code: see `rle`."""

import numpy as np

from vis_jax.formats.rle import (
    MAX_CHARACTERS,
    RleError,
    going_on_after,
    run_lengths,
    signed_numbers,
)

# Characters per chunk: some MB of arrays, and few calls.
CHUNK = 1 << 19

# Two numbers side by side in an integer of 64 bits, the first in the lower half.
_NUMBER, _PAIR = np.dtype("<i4"), np.dtype("<i8")
_SIGNS = np.int64(-(1 << 63) | 1 << 31)
_BIAS = 1 << 30  # more than any number is below 0


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
    if sides and sides.count(sides[0]) == len(sides):  # mostly, and faster
        pixels = np.full(len(sides), sides[0][0] * sides[0][1], np.int64)
    else:
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
    # Each number is one half of a pair. Most masks have an odd number of them.
    text = b"0".join([*strings, b""])
    stops = np.cumsum(sizes + 1)
    raw = np.frombuffer(text, np.uint8)
    cut = raw[stops - 2] >= 80  # the last number goes on
    if raw.min() < 48 or raw.max() > 111 or cut.any():
        bad = (raw < 48) | (raw > 111)
        bad[stops - 2] |= cut
        index = int(np.searchsorted(stops, np.flatnonzero(bad)[0], side="right"))
        raise error(index, "a string cut off or with foreign characters")
    going_on = going_on_after(text)
    numbers = sizes - np.diff(np.searchsorted(going_on, stops), prepend=0)
    odd = (numbers & 1).astype(bool)
    if not odd.all():
        fill = [b"0" if o else b"" for o in odd.tolist()]
        text = b"".join([a + b for a, b in zip(strings, fill, strict=True)])
        going_on = going_on_after(text)
    pairs, too_long = _pairs(text, going_on)
    last = np.cumsum((numbers + 1) >> 1) - 1
    areas, sound, interrupted = _sums(pairs, last, odd, pixels)
    sound[np.searchsorted(last, too_long >> 1)] = False
    if not sound.all():
        index = int(sound.argmin())
        raise error(index, _defect(strings[index]))
    return areas, interrupted


def _defect(string: bytes) -> str:
    """Describes the defect of a mask's runs."""
    _, too_long = signed_numbers(string, going_on_after(string))
    if too_long.size:
        return f"a number of more than {MAX_CHARACTERS} characters"
    return f"runs that add up to {run_lengths(string).sum()}, or a negative one"


def _pairs(text: bytes, going_on: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of `signed_numbers`, an even number of them: first + (second << 32)."""
    values, too_long = signed_numbers(text, going_on)
    values = values.astype(_NUMBER, copy=False)
    values += _BIAS  # so that nothing is borrowed from the upper half
    pairs = values.view(_PAIR)
    pairs -= (_BIAS << 32) + _BIAS
    return pairs, too_long


def _sums(
    pairs: np.ndarray, last: np.ndarray, odd: np.ndarray, pixels: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns foreground pixels, validity, and presence of empty inner runs.

    The two runs of a pair are the halves of one 64-bit integer, which halves the number
    of additions. Below 0, the lower half has bit 31 set: a number has at most 30 bits,
    so no sum passes from below 0 to 2**32, or from 2**31 to 2**32, in one step.

    Args:
      pairs: int64[p], numbers of n masks; overwritten.
      last: int64[n], indices of the last pairs of the masks.
      odd: bool[n], masks whose last number was added to fill the pair.
      pixels: int64[n], what the runs have to add up to.

    Returns:
      int64[n], bool[n], bool[n].
    """
    first = np.concatenate([[0], last[:-1] + 1])
    opening = pairs[first] << 32 >> 32  # the third run is no difference to the first
    pairs[first] -= opening
    # A cumulative sum restarted at every mask.
    sums = np.add.reduceat(pairs, first)
    pairs[first[1:]] -= sums[:-1]
    np.cumsum(pairs, out=pairs)
    wrong = opening < 0
    if np.bitwise_or.reduce(pairs) & _SIGNS:
        wrong |= (np.bitwise_or.reduceat(pairs, first) & _SIGNS) != 0
    pairs[last[odd]] &= (1 << 32) - 1  # padding became a copy of the run before
    interrupted = np.zeros(len(last), bool)
    # Without empty runs, only the places of `opening` and the padding are 0.
    zeros = 2 * len(pairs) - np.count_nonzero(pairs.view(_NUMBER))
    if zeros != len(last) + odd.sum():
        interrupted = _interrupted(pairs, first, last[odd])
    sums = np.add.reduceat(pairs, first)
    pairs >>= 32  # foreground
    areas = np.add.reduceat(pairs, first)
    totals = sums - (areas << 32) + areas + opening
    wrong |= totals != pixels
    return areas, ~wrong, interrupted


def _interrupted(
    pairs: np.ndarray, first: np.ndarray, filled: np.ndarray
) -> np.ndarray:
    """Tells which masks have empty runs between others: bool[n].

    Args:
      pairs: int64, the runs of all masks, without the first of each.
      first: indices of the first pairs of the masks.
      filled: indices of the pairs whose second number was added.
    """
    empty = pairs.view(_NUMBER).reshape(-1, 2) == 0
    empty[first, 0] = False  # a mask may begin with foreground
    empty[filled, 1] = False
    return np.logical_or.reduceat(empty.any(1), first)


def _joined(string: bytes, size: list[int]) -> bytes:
    """Removes the empty runs of a valid mask."""
    from pycocotools import mask as coco_mask

    counts = [0]
    for place, run in enumerate(run_lengths(string).tolist()):
        if len(counts) % 2 != place % 2:  # same kind as the last
            counts[-1] += run
        elif run:
            counts.append(run)
    return coco_mask.frPyObjects({"size": size, "counts": counts}, *size)["counts"]
