"""Higher order tracking accuracy (HOTA), following TrackEval.

Luiten et al., "HOTA", IJCV 2021. Letters: D predicted tracks, G annotated tracks, A
IoU thresholds, n pairs in one frame.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from vis_jax.metrics.assignment import assign
from vis_jax.metrics.frame_overlaps import VideoOverlaps

ALPHAS = np.arange(0.05, 0.99, 0.05)
_EPS = np.finfo("float").eps
# Replaces an empty sum of IoUs and a zero count, so that their ratio, LocA, is 1.
_TINY = 1e-10


class Hota(NamedTuple):
    """Counts and means over pairs of one video, or of several; all float64[A]."""

    TP: np.ndarray
    FN: np.ndarray
    FP: np.ndarray
    AssA: np.ndarray
    AssRe: np.ndarray
    AssPr: np.ndarray
    LocA: np.ndarray

    def report(self) -> dict[str, float]:
        """Returns means over the thresholds, in [0, 1]."""
        return {name: float(np.mean(row)) for name, row in self.rows().items()}

    def rows(self) -> dict[str, np.ndarray]:
        """Returns values at each threshold, in [0, 1]: float64[A]."""
        TP, FN, FP = self[:3]
        det_a = TP / np.maximum(1, TP + FN + FP)
        return {
            "HOTA": np.sqrt(det_a * self.AssA),
            "DetA": det_a,
            "AssA": self.AssA,
            "LocA": self.LocA,
            "DetRe": TP / np.maximum(1, TP + FN),
            "DetPr": TP / np.maximum(1, TP + FP),
            "AssRe": self.AssRe,
            "AssPr": self.AssPr,
        }


def hota(overlaps: VideoOverlaps) -> Hota:
    """Computes HOTA of one video.

    Each frame is matched to maximise IoU weighted by the global alignment of the two
    tracks; a pair is a true positive if its IoU is at least alpha.
    """
    count_g, count_d, alignment = _alignment(overlaps)
    matches = np.zeros((len(ALPHAS), *alignment.shape))
    TP, FN, FP, loc = np.zeros((4, len(ALPHAS)))
    for rows, columns, iou in zip(*overlaps[:3], strict=True):
        pairs = assign(alignment[np.ix_(rows, columns)] * iou)
        value = iou[pairs]
        true = value >= ALPHAS[:, None] - _EPS  # [A, n]
        number = true.sum(1)
        TP += number
        FN += len(rows) - number
        FP += len(columns) - number
        if len(value):
            loc += np.where(true, value, 0.0).cumsum(1)[:, -1]
            matches[:, rows[pairs[0]], columns[pairs[1]]] += true
    wholes = (count_g + count_d - matches, count_g, count_d)
    shares = [
        [np.sum(n * (n / np.maximum(1, w))) for n, w in zip(matches, one, strict=True)]
        for one in (np.broadcast_to(w, matches.shape) for w in wholes)
    ]
    ass_a, ass_re, ass_pr = (np.array(share) / np.maximum(1, TP) for share in shares)
    return Hota(TP, FN, FP, ass_a, ass_re, ass_pr, _mean_iou(loc, TP))


def pooled(videos: Sequence[Hota]) -> Hota:
    """Pools several videos: sums counts, and averages means weighted by pairs."""
    shape = len(ALPHAS)
    TP, FN, FP = (sum((v[i] for v in videos), np.zeros(shape)) for i in range(3))
    ass_a, ass_re, ass_pr, loc = (
        sum((v[i] * v.TP for v in videos), np.zeros(shape)) for i in range(3, 7)
    )
    pairs = np.maximum(1.0, TP)
    means = (ass_a / pairs, ass_re / pairs, ass_pr / pairs)
    return Hota(TP, FN, FP, means[0], means[1], means[2], _mean_iou(loc, TP))


def _mean_iou(total: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    return np.maximum(_TINY, total) / np.maximum(_TINY, pairs)


def _alignment(
    overlaps: VideoOverlaps,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns frames per track, [G, 1] and [1, D], and global alignment, [G, D]."""
    G, D = overlaps.num_truths, len(overlaps.scores)
    count_g, count_d, agree = np.zeros((G, 1)), np.zeros((1, D)), np.zeros((G, D))
    for rows, columns, iou in zip(*overlaps[:3], strict=True):
        # Similarity relative to the total overlap of both.
        whole = iou.sum(0)[None, :] + iou.sum(1)[:, None] - iou
        share = np.zeros_like(iou)
        np.divide(iou, whole, out=share, where=whole > _EPS)
        agree[np.ix_(rows, columns)] += share
        count_g[rows] += 1
        count_d[0, columns] += 1
    # Tracks that are never visible share nothing.
    return count_g, count_d, agree / np.maximum(1, count_g + count_d - agree)
