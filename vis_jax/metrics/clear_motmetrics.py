"""CLEAR metrics following py-motmetrics 1.4.0, with which papers report MOTA.

Bernardin and Stiefelhagen, "CLEAR MOT", 2008. Differences from TrackEval: a match from
any earlier frame is kept, not only from the previous one; a track is mostly tracked
from 80 % of its frames, not above; and frames in which a track is not visible do not
fragment it.
Letters: D predicted tracks, G annotated tracks, of one frame.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from vis_jax.metrics.assignment import assign
from vis_jax.metrics.frame_overlaps import VideoOverlaps


class Counts(NamedTuple):
    """Counts of one video, or summed over several, under py-motmetrics' names."""

    num_switches: int = 0
    num_fragmentations: int = 0
    mostly_tracked: int = 0  # matched in at least 80 % of their frames
    partially_tracked: int = 0
    mostly_lost: int = 0  # matched in less than 20 %
    num_false_positives: int = 0
    num_misses: int = 0
    num_matches: int = 0  # without switches
    num_objects: int = 0  # annotated masks
    num_predictions: int = 0  # predicted masks
    distance: float = 0.0  # 1 - IoU, summed over matches and switches

    def report(self) -> dict[str, float | int | None]:
        """Returns ratios and counts under py-motmetrics' names; None where undefined.

        `motp` is a mean distance, 0 at best. Where this gives None, py-motmetrics gives
        NaN or infinity, even for several videos if one of them has no match.
        """
        found = self.num_matches + self.num_switches
        errors = self.num_misses + self.num_switches + self.num_false_positives
        ratios = {
            "mota": _ratio(self.num_objects - errors, self.num_objects),
            "motp": _ratio(self.distance, found),
            "precision": _ratio(found, found + self.num_false_positives),
            "recall": _ratio(found, self.num_objects),
        }
        return ratios | dict(zip(self._fields[:-1], self, strict=False))


def total(parts: Iterable[Counts]) -> Counts:
    """Counts added up."""
    return Counts(*map(sum, zip(Counts(), *parts, strict=True)))


def count(overlaps: VideoOverlaps, kept: np.ndarray, *, iou_threshold: float) -> Counts:
    """Matches the tracks of one video frame by frame and counts the outcomes.

    Args:
      overlaps: overlaps of all predictions.
      kept: bool, the predictions that take part.
      iou_threshold: pairs below never match.
    """
    history: defaultdict[int, list[bool]] = defaultdict(list)  # found, where visible
    frames = []
    for found in match_frames(overlaps, kept, iou_threshold=iou_threshold):
        for truth_id in found.truth_ids:
            history[truth_id].append(truth_id in found.partner)
        num_pairs, num_results = len(found.partner), len(found.result_ids)
        frame = Counts(
            num_switches=len(found.switches),
            num_false_positives=num_results - num_pairs,
            num_misses=len(found.truth_ids) - num_pairs,
            num_matches=num_pairs - len(found.switches),
            num_objects=len(found.truth_ids),
            num_predictions=num_results,
            distance=found.distance,
        )
        frames.append(frame)
    return total([*frames, *map(_track_counts, history.values())])


class FrameMatch(NamedTuple):
    """Matches between annotated tracks and predictions in one frame."""

    truth_ids: list[int]  # tracks in the frame, as indices 0 .. G - 1
    result_ids: list[int]  # predictions in the frame, as indices 0 .. D - 1
    partner: dict[int, int]  # prediction of each track that has one
    switches: list[int]  # tracks whose prediction differs from their last one
    distance: float  # 1 - IoU, summed over the pairs


def match_frames(
    overlaps: VideoOverlaps, kept: np.ndarray, *, iou_threshold: float
) -> Iterator[FrameMatch]:
    """Matches the tracks of one video frame by frame.

    Args:
      overlaps: overlaps of all predictions.
      kept: bool, the predictions that take part.
      iou_threshold: pairs below never match.
    """
    last: dict[int, int] = {}  # last matched prediction of each track
    for rows, columns, ious in zip(*overlaps[:3], strict=True):
        truth_ids, result_ids = rows.tolist(), columns[kept[columns]].tolist()
        iou = ious[:, kept[columns]]
        pairs = _pairs(
            truth_ids, result_ids, iou, iou_threshold=iou_threshold, last=last
        )
        partner = {truth_ids[g]: result_ids[d] for g, d in pairs.items()}
        switches = [g for g, d in partner.items() if last.get(g, d) != d]
        last.update(partner)
        distance = sum(1 - float(iou[pair]) for pair in pairs.items())
        yield FrameMatch(truth_ids, result_ids, partner, switches, distance)


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def _pairs(
    truth_ids: list[int],
    result_ids: list[int],
    iou: np.ndarray,
    *,
    iou_threshold: float,
    last: dict[int, int],
) -> dict[int, int]:
    """Assigns predictions to the tracks of a frame; both are indices in the frame.

    Args:
      truth_ids, result_ids: G and D ids.
      iou: float64[G, D].
      iou_threshold: pairs below never match.
      last: last matched prediction id, by track id.
    """
    admissible = iou >= iou_threshold
    pairs: dict[int, int] = {}
    place = {result_id: d for d, result_id in enumerate(result_ids)}
    for g, truth_id in enumerate(truth_ids):
        d = place.get(last.get(truth_id, -1))
        if d is not None and admissible[g, d] and d not in pairs.values():
            pairs[g] = d
    # Maximises the number of pairs, then IoU.
    value = np.where(admissible, iou, -1e6)
    value[list(pairs)] = value[:, list(pairs.values())] = -1e6
    for g, d in zip(*assign(value), strict=True):
        if value[g, d] >= 0:
            pairs[int(g)] = int(d)
    return pairs


def _track_counts(found: list[bool]) -> Counts:
    """Returns the counts contributed by one track.

    Args:
      found: whether it was matched, per frame in which it is visible.
    """
    share = sum(found) / len(found)
    places = np.flatnonzero(found).tolist()
    return Counts(
        num_fragmentations=sum(b - a > 1 for a, b in pairwise(places)),
        mostly_tracked=int(share >= 0.8),
        partially_tracked=int(0.2 <= share < 0.8),
        mostly_lost=int(share < 0.2),
    )
