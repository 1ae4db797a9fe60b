"""CLEAR and identity metrics, following TrackEval.

Bernardin and Stiefelhagen, "CLEAR MOT", 2008; Ristani et al., "Performance Measures and
a Data Set for Multi-Target, Multi-Camera Tracking", 2016. For the rules of
py-motmetrics see `clear_motmetrics`. Letters: D predicted tracks, G annotated tracks.
"""

import functools
import operator
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from vis_jax.metrics.assignment import assign
from vis_jax.metrics.frame_overlaps import VideoOverlaps

_EPS = np.finfo("float").eps
_KEPT = 1000  # bonus of pairs matched in the previous frame: above any IoU


class Clear(NamedTuple):
    """Counts of one video, or the sums over several."""

    IDSW: int = 0  # identity switches
    Frag: int = 0  # fragmentations: a track is matched again after a gap
    MT: int = 0  # mostly tracked: matched in more than 80 % of their frames
    PT: int = 0
    ML: int = 0  # mostly lost: matched in less than 20 %
    TP: int = 0
    FN: int = 0
    FP: int = 0
    iou: float = 0.0  # sum over all matches

    def report(self) -> dict[str, float]:
        """Ratios."""
        objects = np.maximum(1.0, self.TP + self.FN)
        ratios = {
            "MOTA": (self.TP - self.FP - self.IDSW) / objects,
            "sMOTA": (self.iou - self.FP - self.IDSW) / objects,
            "MOTP": self.iou / np.maximum(1.0, self.TP),
            "Re": self.TP / objects,
            "Pr": self.TP / np.maximum(1.0, self.TP + self.FP),
        }
        return {name: float(value) for name, value in ratios.items()}


class Identity(NamedTuple):
    """Identity counts of masks, of one video or summed over several."""

    IDTP: int = 0
    IDFN: int = 0
    IDFP: int = 0

    def report(self) -> dict[str, float]:
        """Ratios."""
        mean = self.IDTP + 0.5 * self.IDFP + 0.5 * self.IDFN
        return {
            "IDF1": float(self.IDTP / np.maximum(1.0, mean)),
            "IDP": float(self.IDTP / np.maximum(1.0, self.IDTP + self.IDFP)),
            "IDR": float(self.IDTP / np.maximum(1.0, self.IDTP + self.IDFN)),
        }


def total(parts: Iterable[Clear]) -> Clear:
    """Counts added up."""
    *counts, iou = zip(Clear(), *parts, strict=True)
    return Clear._make([*map(sum, counts), _in_order(iou)])


def total_identity(parts: Iterable[Identity]) -> Identity:
    """Counts added up."""
    return Identity(*map(sum, zip(Identity(), *parts, strict=True)))


def clear(overlaps: VideoOverlaps, *, iou_threshold: float) -> Clear:
    """Matches the tracks of one video frame by frame and counts the outcomes.

    Args:
      overlaps: overlaps of one video.
      iou_threshold: pairs below never match.
    """
    G = overlaps.num_truths
    present, found, runs = np.zeros((3, G), np.int64)
    last = np.full(G, -1)  # prediction that a track was matched with last
    before = np.full(G, -1)  # match in the last frame with tracks and predictions
    IDSW = TP = FN = FP = 0
    iou_sum = 0.0
    for rows, columns, iou in zip(*overlaps[:3], strict=True):
        present[rows] += 1
        value = _KEPT * (columns == before[rows][:, None]) + iou
        value[iou < iou_threshold - _EPS] = 0
        g, d = assign(value)
        true = value[g, d] > _EPS
        g, d = g[true], d[true]
        TP += len(g)
        FN += len(rows) - len(g)
        FP += len(columns) - len(g)
        if not len(rows) or not len(columns):
            continue  # `before` stays
        tracks, ids = rows[g], columns[d]
        IDSW += int(((last[tracks] >= 0) & (last[tracks] != ids)).sum())
        found[tracks] += 1
        last[tracks] = ids
        runs[tracks] += before[tracks] < 0
        before[:] = -1
        before[tracks] = ids
        iou_sum += _in_order(iou[g, d].tolist())
    visible = present > 0
    share = found[visible] / present[visible]
    MT, some = int((share > 0.8).sum()), int((share >= 0.2).sum())
    return Clear(
        IDSW=IDSW,
        Frag=int((runs[runs > 0] - 1).sum()),
        MT=MT,
        PT=some - MT,
        ML=int(visible.sum()) - some,
        TP=TP,
        FN=FN,
        FP=FP,
        iou=iou_sum,
    )


def _in_order(values: Iterable[float]) -> float:
    """Sums with rounding at each step, as `sum` does only up to Python 3.11."""
    return functools.reduce(operator.add, values, 0.0)


def shared_frames(
    overlaps: VideoOverlaps, *, iou_threshold: float
) -> tuple[np.ndarray, np.ndarray]:
    """Counts frames in which two tracks match, int64[G, D], and in all per prediction.

    Args:
      overlaps: overlaps of one video.
      iou_threshold: pairs below never match.
    """
    D = len(overlaps.scores)
    shared, frames = np.zeros((overlaps.num_truths, D), int), np.zeros(D, int)
    for rows, columns, iou in zip(*overlaps[:3], strict=True):
        shared[np.ix_(rows, columns)] += iou >= iou_threshold
        frames[columns] += 1
    return shared, frames


def identity(overlaps: VideoOverlaps, *, iou_threshold: float) -> Identity:
    """Counts identity matches under the assignment that maximises IDTP.

    Maximising IDTP minimises IDFP + IDFN.
    """
    shared, frames = shared_frames(overlaps, iou_threshold=iou_threshold)
    IDTP = int(shared[assign(shared)].sum())
    masks = sum(map(len, overlaps.truth_ids))
    return Identity(IDTP, masks - IDTP, int(frames.sum()) - IDTP)
