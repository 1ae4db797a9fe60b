"""Run-length masks in NumPy: COCO strings, lists of counts and polygons.

Pixels are in column-major order. Runs alternate background and foreground, starting
with background; a mask is stored as the end positions of its runs. Letters: K masks, R
runs in total.
"""

from collections.abc import Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np

# Maximum pixels of a frame; 8192 x 4320 fit. When pycocotools writes run lengths, it
# reserves six characters per run and none for the end, which three runs of 2**24 pixels
# would exceed.
MAX_PIXELS = 3 * 2**24 - 1
# Maximum characters of a number: enough for differences of runs below 2**29 pixels.
# pycocotools misreads longer numbers, which overflow a 32-bit integer.
MAX_CHARACTERS = 6

_GOING_ON = bytes(range(80, 112))  # characters with the continuation bit
# The last five bits carry the sign: 0 .. 31 stands for 0 .. 15, -16 .. -1.
_SMALL = bytes(((c - 48) % 32 ^ 16) - 16 & 255 for c in range(256))


class Runs(NamedTuple):
    """Concatenated runs of K masks."""

    ends: np.ndarray  # int32 [R], the pixel at which each run ends
    splits: np.ndarray  # int64 [K + 1], mask k has the runs splits[k] .. splits[k + 1]


class RleError(ValueError):
    """Invalid run lengths.

    Args:
      index: index of the mask.
      expected, got: as in the message.
    """

    def __init__(self, index: int, expected: str, got: object) -> None:
        self.index, self.expected, self.got = index, expected, got
        super().__init__(f"expected {expected}, got {got}")


def runs_from_strings(strings: Sequence[bytes], pixels: int) -> Runs:
    """Reads compressed COCO run lengths, as pycocotools writes them.

    pycocotools `rleFrString`: 5 bits a character, low bits first, offset 48, bit 5 set
    if more follow, sign in bit 4 of the last; from the fourth count on the difference
    to the count two before is stored.

    Args:
      strings: one for each mask.
      pixels: height times width, the same for all masks.

    Raises:
      RleError: a string that does not decode, or whose runs do not fill the frame.
    """
    sizes = np.array([len(string) for string in strings], np.int64)
    text = b"".join(strings)
    raw = np.frombuffer(text, np.uint8)
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    bad = (raw < 48) | (raw > 111)
    if bad.any():
        index = _owner(offsets, bad)
        raise RleError(index, "characters '0' to 'o'", repr(strings[index][:40]))
    going_on = going_on_after(text)
    cut = (sizes > 0) & np.isin(offsets[1:] - 1, going_on)
    if cut.any():
        got = "one that stops inside a count"
        raise RleError(int(cut.argmax()), "a whole string", got)
    values, too_long = signed_numbers(text, going_on)
    lengths = sizes - np.diff(np.searchsorted(going_on, offsets))
    if too_long.size:
        splits = np.cumsum(lengths)
        index = int(np.searchsorted(splits, too_long[0], side="right"))
        raise RleError(
            index, f"at most {MAX_CHARACTERS} characters for a count", "more"
        )
    return runs_from_counts(_undo_differences(values, lengths), lengths, pixels)


def run_lengths(string: bytes) -> np.ndarray:
    """Decodes a valid mask: int64 [n], alternating background and foreground.

    Args:
      string: compressed counts.
    """
    values, _ = signed_numbers(string, going_on_after(string))
    return _undo_differences(values, np.array([len(values)]))


def going_on_after(text: bytes) -> np.ndarray:
    """Returns the indices of the characters that do not end their number: int64."""
    return np.flatnonzero(np.frombuffer(text, np.uint8) >= 80)


def signed_numbers(text: bytes, going_on: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Reads the signed numbers of checked strings in a row.

    Args:
      text: characters "0" to "o", the last of which ends a number.
      going_on: output of `going_on_after`.

    Returns:
      int32, modulo 2**32, and int64, the indices of those of more than MAX_CHARACTERS,
      an index for each character too many.
    """
    values = np.frombuffer(text.translate(_SMALL, _GOING_ON), np.int8).astype(np.int32)
    # Nearly all numbers have one character. The others take the five bits of a
    # character in each round, from the last to the first: of equal indices in an
    # assignment the last one counts.
    index = going_on - np.arange(len(going_on))
    bits = np.frombuffer(text, np.uint8)[going_on] & 31 ^ 16
    for _ in range(MAX_CHARACTERS - 1):
        if not len(index):
            break
        values[index] = (values[index] << 5) | bits
        same = np.flatnonzero(index[1:] == index[:-1])
        index, bits = index[same], bits[same]
    return values, index


def runs_from_lists(lists: Sequence[Sequence[object]], pixels: int) -> Runs:
    """Reads run lengths given as lists of whole numbers, one list for each mask.

    Raises:
      RleError: a list with something else in it, or whose runs do not fill the frame.
    """
    lengths = np.array([len(counts) for counts in lists], np.int64)
    try:
        counts = np.array(list(chain.from_iterable(lists)))
    except ValueError:
        counts = np.array(None)
    whole = counts.dtype.kind in "iu" or not counts.size
    if counts.ndim != 1 or not whole:
        for index, one in enumerate(lists):
            for value in one:
                if not isinstance(value, int) or abs(value) >= 2**62:
                    raise RleError(index, "run lengths below 2**31", repr(value))
    return runs_from_counts(counts.astype(np.int64), lengths, pixels)


def runs_from_counts(counts: np.ndarray, lengths: np.ndarray, pixels: int) -> Runs:
    """Checks run lengths and turns them into run ends.

    Args:
      counts: int64 [R], of all masks one after the other.
      lengths: int64 [K], the number of counts of each mask.
      pixels: total that the counts of each mask must add up to.
    """
    splits = np.concatenate([[0], np.cumsum(lengths)])
    bad = (counts < 0) | (counts > pixels)
    if bad.any():
        got = int(counts[bad.argmax()])
        raise RleError(_owner(splits, bad), f"run lengths from 0 to {pixels}", got)
    total = np.concatenate([[0], np.cumsum(counts)])
    sums = total[splits[1:]] - total[splits[:-1]]
    if (sums != pixels).any():
        index = int((sums != pixels).argmax())
        expected = f"run lengths that add up to height x width = {pixels}"
        raise RleError(index, expected, int(sums[index]))
    ends = total[1:] - np.repeat(total[splits[:-1]], lengths)
    return Runs(ends.astype(np.int32), splits.astype(np.int64))


def concatenate_runs(parts: Sequence[Runs]) -> Runs:
    """Joins the masks of several `Runs` in order."""
    lengths = [np.diff(part.splits) for part in parts]
    splits = np.cumsum(np.concatenate([[0], *lengths]), dtype=np.int64)
    empty = np.zeros(0, np.int32)
    return Runs(np.concatenate([empty, *(part.ends for part in parts)]), splits)


def take_runs(runs: Runs, masks: np.ndarray) -> Runs:
    """Selects masks by index, int [N]."""
    parts = [runs.ends[runs.splits[k] : runs.splits[k + 1]] for k in masks]
    splits = np.cumsum([0, *(len(part) for part in parts)], dtype=np.int64)
    return Runs(np.concatenate([np.zeros(0, np.int32), *parts]), splits)


def areas_of_runs(runs: Runs) -> np.ndarray:
    """Returns the number of pixels of each mask: int64 [K]."""
    starts, lengths, _ = _foreground(runs)
    total = np.concatenate([[0], np.cumsum(lengths)])
    bounds = np.searchsorted(starts, runs.splits)
    return total[bounds[1:]] - total[bounds[:-1]]


def boxes_of_runs(runs: Runs, height: int) -> np.ndarray:
    """Returns tight x1 y1 x2 y2 boxes in pixels: float32 [K, 4]; 0 for empty masks."""
    runs_at, lengths, begins = _foreground(runs)
    bounds = np.searchsorted(runs_at, runs.splits)
    boxes = np.zeros((len(runs.splits) - 1, 4), np.float32)
    filled = np.flatnonzero(np.diff(bounds))
    if not filled.size:
        return boxes
    ends = begins + lengths
    x1, x2 = begins // height, (ends - 1) // height + 1
    # A run that continues into the next column touches the bottom and the top.
    one_column = x2 == x1 + 1
    y1 = np.where(one_column, begins % height, 0)
    y2 = np.where(one_column, (ends - 1) % height + 1, height)
    cuts = bounds[:-1][filled]
    for column, values in enumerate((x1, y1)):
        boxes[filled, column] = np.minimum.reduceat(values, cuts)
    for column, values in enumerate((x2, y2)):
        boxes[filled, column + 2] = np.maximum.reduceat(values, cuts)
    return boxes


def decode_mask(runs: Runs, mask: int, *, height: int, width: int) -> np.ndarray:
    """Decodes one mask to bool [H, W]."""
    ends = runs.ends[runs.splits[mask] : runs.splits[mask + 1]]
    values = np.arange(len(ends)) % 2 == 1
    flat = np.repeat(values, np.diff(ends, prepend=0))
    return np.ascontiguousarray(flat.reshape(width, height).T)


def compress_mask(
    runs: Runs, mask: int | np.integer, *, height: int, width: int
) -> dict:
    """Encodes one mask as in pycocotools: {"size": [H, W], "counts": bytes}."""
    from pycocotools import mask as coco

    ends = runs.ends[runs.splits[mask] : runs.splits[mask + 1]]
    counts = np.diff(ends, prepend=0).tolist()
    return coco.frPyObjects({"size": [height, width], "counts": counts}, height, width)


def plain_mask(rle: dict) -> dict:
    """Converts `counts` to a string, for JSON."""
    counts = rle["counts"]
    text = counts.decode("ascii") if isinstance(counts, bytes) else counts
    return {"size": [int(side) for side in rle["size"]], "counts": text}


def string_from_polygons(
    polygons: Sequence[Sequence[float]], *, height: int, width: int
) -> bytes:
    """Rasterises polygons; returns the compressed run lengths of their union.

    Source: pycocotools `rleFrPoly`, as used by the YouTube-VIS API.

    Args:
      polygons: each x1 y1 x2 y2 .. in pixels, checked by the caller: at least three
        points, finite, not far outside the frame.
    """
    from pycocotools import mask as coco

    parts = coco.frPyObjects([list(map(float, p)) for p in polygons], height, width)
    return coco.merge(parts)["counts"]


def _owner(offsets: np.ndarray, bad: np.ndarray) -> int:
    """Returns the mask that contains the first bad element."""
    return int(np.searchsorted(offsets, bad.argmax(), side="right")) - 1


def _undo_differences(values: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Adds the count two before to every count after the third of its mask."""
    splits = np.concatenate([[0], np.cumsum(lengths)])
    place = np.arange(len(values)) - np.repeat(splits[:-1], lengths)
    mask = np.repeat(np.arange(len(lengths)), lengths)
    counts = values.astype(np.int64)
    for parity in (0, 1):
        chain_at = np.flatnonzero((place % 2 == parity) & (place > 0))
        total = np.cumsum(values[chain_at], dtype=np.int64)
        owner = mask[chain_at]
        first = np.searchsorted(owner, owner)  # the start of the chain of this mask
        before = np.concatenate([[0], total])[first]
        counts[chain_at] = total - before
    return counts


def _foreground(runs: Runs) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns non-empty foreground runs: index among all runs, length, first pixel."""
    ends = runs.ends.astype(np.int64)
    place = np.arange(len(ends)) - np.repeat(runs.splits[:-1], np.diff(runs.splits))
    odd = np.flatnonzero(place % 2 == 1)
    begins = ends[odd - 1]
    lengths = ends[odd] - begins
    keep = lengths > 0
    return odd[keep], lengths[keep], begins[keep]
