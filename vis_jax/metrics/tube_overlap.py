"""Exact pixel overlap of tubes, from run lengths without decoding masks.

D predictions, G annotated tracks, T frames.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from pycocotools import mask as coco_mask

from vis_jax.formats.tracks import ResultTrack, Track, TruthTrack


class Overlap(NamedTuple):
    """Pixels shared by two sets of tubes and pixels covered by either."""

    intersection: np.ndarray  # int64[D, G]
    union: np.ndarray  # int64[D, G]

    def iou(self) -> np.ndarray:
        """float64[D, G]; 0 where both are empty."""
        return self.intersection / np.maximum(self.union, 1)


def tube_overlap(
    predictions: list[ResultTrack],
    truths: list[TruthTrack],
    *,
    official_quirks: bool,
) -> Overlap:
    """Computes intersection and union, each summed over frames.

    Yang et al., "Video Instance Segmentation", ICCV 2019, Eq. 2.

    Args:
      predictions, truths: D and G tracks of one video.
      official_quirks: ignore frames beyond the shorter list, and frames in which the
        two masks differ in size. Otherwise such frames have no intersection.
    """
    tracks: list[Track] = [*predictions, *truths]
    shape = (len(predictions), len(truths))
    frames = max((len(track.areas) for track in tracks), default=0)
    shared = np.zeros(shape, np.int64)
    dropped = np.zeros(shape, np.int64)  # pixels ignored by the official quirks
    odd_sizes = official_quirks and _sizes_differ(tracks)
    areas_d, areas_g = _areas(predictions, frames), _areas(truths, frames)
    for t in range(frames):
        rows, columns = areas_d[:, t].nonzero()[0], areas_g[:, t].nonzero()[0]
        _add_shared(shared, (predictions, truths), (rows, columns), t)
        if odd_sizes:
            dropped += _mismatched(predictions, truths, t)
    if official_quirks:
        dropped += _beyond_the_shorter(predictions, truths)
    pixels = areas_d.sum(1)[:, None] + areas_g.sum(1)
    return Overlap(shared, pixels - dropped - shared)


def matching_iou(
    predictions: list[ResultTrack],
    truths: list[TruthTrack],
    *,
    official_quirks: bool,
) -> np.ndarray:
    """Returns IoU where it is at least 0.5, else some lower value: float64[D, G].

    IoU below 0.5 never matches, so a pair is abandoned once the remaining frames cannot
    raise it to 0.5: in a frame two masks share at most the area of the smaller.

    Args:
      predictions, truths, official_quirks: as in `tube_overlap`.
    """
    tracks: list[Track] = [*predictions, *truths]
    if len({len(track.areas) for track in tracks}) > 1 or _sizes_differ(tracks):
        return tube_overlap(predictions, truths, official_quirks=official_quirks).iou()
    frames = len(tracks[0].areas)
    areas_d, areas_g = _areas(predictions, frames), _areas(truths, frames)
    total = areas_d.sum(1)[:, None] + areas_g.sum(1)
    most = np.minimum(areas_d[:, None], areas_g)  # [D, G, T]
    bound = most.sum(2)  # shared so far, plus the most the other frames can share
    # 2 I >= U and I + U = total: a pair is open while 3 I can reach the total. Frames
    # with large masks come first, as they settle most pairs.
    for t in (-most.sum((0, 1))).argsort(kind="stable").tolist():
        still_open = 3 * bound >= total
        if not still_open.any():
            break
        still_open &= most[..., t] > 0
        rows, columns = still_open.any(1).nonzero()[0], still_open.any(0).nonzero()[0]
        bound[rows[:, None], columns] -= most[rows[:, None], columns, t]
        _add_shared(bound, (predictions, truths), (rows, columns), t)
    closed = 3 * bound < total
    return np.where(closed, 0.0, bound / np.maximum(total - bound, 1))


def frame_intersection(a: list[dict], b: list[dict], areas_a: np.ndarray) -> np.ndarray:
    """Counts pixels shared by masks of one frame: int64[len(a), len(b)].

    Args:
      a, b: run lengths of non-empty masks.
      areas_a: int64, pixels of each mask of `a`.
    """
    # With iscrowd, pycocotools divides by the area of `a` alone: multiplying by that
    # area is within 1e-9 of the integer, so rounding gives the exact count. Where sizes
    # differ it gives -1 or 0.
    share = coco_mask.iou(a, b, [1] * len(b))
    return np.rint(np.maximum(share, 0.0) * areas_a[:, None]).astype(np.int64)


def _areas(tracks: Sequence[Track], frames: int) -> np.ndarray:
    """Returns pixels per frame, 0 beyond the end of a list: int64[n, frames]."""
    table = np.zeros((len(tracks), frames), np.int64)
    for i, track in enumerate(tracks):
        table[i, : len(track.areas)] = track.areas
    return table


def _add_shared(
    sums: np.ndarray,
    tracks: tuple[Sequence[ResultTrack], Sequence[TruthTrack]],
    places: tuple[np.ndarray, np.ndarray],
    t: int,
) -> None:
    """Adds the pixels shared in frame t to the sums [D, G] of selected pairs.

    Args:
      sums: int64[D, G].
      tracks: D and G tracks.
      places: indices of the tracks to compare pairwise; none is empty in t.
    """
    (predictions, truths), (rows, columns) = tracks, places
    if len(rows) and len(columns):
        sums[rows[:, None], columns] += frame_intersection(
            [predictions[i].segmentations[t] for i in rows],
            [truths[j].segmentations[t] for j in columns],
            np.array([predictions[i].areas[t] for i in rows]),
        )


def _sizes_differ(tracks: Sequence[Track]) -> bool:
    sizes = [rle["size"] for track in tracks for rle in track.segmentations if rle]
    return sizes.count(sizes[0]) < len(sizes) if sizes else False


def _mismatched(predictions: list, truths: list, t: int) -> np.ndarray:
    """Returns pixels of frame t of pairs whose masks both exist but differ in size."""
    heights_d, widths_d, areas_d = _sizes(predictions, t)
    heights_g, widths_g, areas_g = _sizes(truths, t)
    differ = (heights_d[:, None] != heights_g) | (widths_d[:, None] != widths_g)
    differ &= (heights_d[:, None] > 0) & (heights_g > 0)
    return np.where(differ, areas_d[:, None] + areas_g, 0)


def _sizes(tracks: Sequence[Track], t: int) -> np.ndarray:
    """Returns height, width, area in frame t, 0 without a mask: int64[3, n]."""
    table = np.zeros((3, len(tracks)), np.int64)
    for i, track in enumerate(tracks):
        mask = track.segmentations[t] if t < len(track.areas) else None
        if mask is not None:
            table[:, i] = *mask["size"], track.areas[t]
    return table


def _beyond_the_shorter(predictions: list, truths: list) -> np.ndarray:
    """Returns pixels in frames that only one track of a pair has."""
    extra = np.zeros((len(predictions), len(truths)), np.int64)
    if len({len(track.areas) for track in [*predictions, *truths]}) == 1:
        return extra
    for i, prediction in enumerate(predictions):
        for j, truth in enumerate(truths):
            n = min(len(prediction.areas), len(truth.areas))
            extra[i, j] = prediction.areas[n:].sum() + truth.areas[n:].sum()
    return extra
