"""Bootstrap samples of AP and identity metrics over videos.

Efron, "Bootstrap Methods: Another Look at the Jackknife", 1979: resampling the videos
with replacement estimates how much a metric varies with the choice of videos. Letters:
S samples, V videos, n predictions, T thresholds.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from vis_jax.formats.tracks import Id
from vis_jax.metrics.tracking import Measures
from vis_jax.metrics.video_ap import IOU_THRESHOLDS, RECALL_POINTS, Matches

_FEW = 10  # predictions per video and category that count for AR10
_BLOCK = 1 << 20  # predictions times samples per block: some MB of arrays
_AT_75 = 5  # index of IoU 0.75 among the thresholds


def draw(num_videos: int, num_samples: int, seed: int) -> np.ndarray:
    """Draws bootstrap counts of each video: int64[S, V]; each row sums to V."""
    rng = np.random.default_rng(seed)
    even = np.full(num_videos, 1 / num_videos)
    return rng.multinomial(num_videos, even, size=num_samples)


def precision_samples(
    matches: Mapping[Id, Mapping[Id, Matches]], videos: Sequence[Id], counts: np.ndarray
) -> dict[str, np.ndarray]:
    """Computes AP, AP50, AP75 and AR10 per sample: float64[S], NaN where undefined.

    Args:
      matches: by category and video, as returned by `video_ap.evaluate`.
      videos: V ids.
      counts: int64[S, V], occurrences of each video in a sample.
    """
    place = {video_id: v for v, video_id in enumerate(videos)}
    precision, recall = [], []
    for category in sorted(matches, key=str):
        of_category = matches[category]
        known = {v: m for v, m in of_category.items() if v in place}
        if known:
            found = _category(known, place, counts)
            precision.append(found[0])
            recall.append(found[1])
    if not precision:
        nothing = np.full(len(counts), np.nan)
        return dict.fromkeys(("AP", "AP50", "AP75", "AR10"), nothing)
    ap, ar = _mean(np.array(precision)), _mean(np.array(recall))  # [S, T]
    return {
        "AP": ap.mean(1),
        "AP50": ap[:, 0],
        "AP75": ap[:, _AT_75],
        "AR10": ar.mean(1),
    }


def identity_samples(
    measures: Mapping[Id, Measures], videos: Sequence[Id], counts: np.ndarray
) -> dict[str, np.ndarray]:
    """Computes IDF1, AssA and IDSW per sample: float64[S], NaN where undefined.

    Args:
      measures: by video, as returned by `tracking.identity_measures`.
      videos, counts: as in `precision_samples`.
    """
    every = [measures[video_id] for video_id in videos]
    idtp, idfn, idfp = (counts @ np.array([x.identity for x in every])).T
    pairs = np.array([x.hota.TP for x in every])  # [V, A]
    shared = np.array([x.hota.AssA for x in every]) * pairs
    ass_a = ((counts @ shared) / np.maximum(1, counts @ pairs)).mean(1)
    idf1 = idtp / np.maximum(1, idtp + 0.5 * (idfp + idfn))
    switches = (counts @ np.array([x.clear.IDSW for x in every])).astype(float)
    defined = idtp + idfn > 0  # annotated masks
    return {
        "IDF1": np.where(defined, idf1, np.nan),
        "AssA": np.where(defined, ass_a, np.nan),
        "IDSW": switches,
    }


class _Entries(NamedTuple):
    """The predictions of one category, best score first."""

    video: np.ndarray  # int64[n], index of the video
    rank: np.ndarray  # int64[n], within video and category
    matched: np.ndarray  # bool[T, n]
    ignored: np.ndarray  # bool[T, n]


def _category(
    matches: Mapping[Id, Matches], place: Mapping[Id, int], counts: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns AP and recall of a category: float64[S, T], NaN where undefined."""
    entries = _entries(matches, place)
    needed = np.zeros(len(counts))
    for video_id, one in matches.items():
        needed += counts[:, place[video_id]] * int(one.num_truths[0])
    step = max(1, _BLOCK // max(1, len(entries.video)))
    blocks = [slice(start, start + step) for start in range(0, len(counts), step)]
    parts = [_block(entries, needed[block], counts[block]) for block in blocks]
    precision, recall = (np.concatenate(rows) for rows in zip(*parts, strict=True))
    return precision, recall


def _block(
    entries: _Entries, needed: np.ndarray, counts: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Like `_category`, for a block of samples.

    Args:
      entries: n predictions.
      needed: float64[S], number of ground-truth tracks.
      counts: int64[S, V].
    """
    S, T = len(counts), len(IOU_THRESHOLDS)
    weight = counts[:, entries.video]  # [S, n]
    precision, recall = np.zeros((S, T)), np.zeros((S, T))
    for t in range(T):
        true = entries.matched[t] & ~entries.ignored[t]
        seen = (weight * ~entries.ignored[t]).cumsum(1)[:, true]
        correct = weight[:, true].cumsum(1)
        reached = correct / np.maximum(1, needed)[:, None]
        precision[:, t] = _area(correct / (seen + np.spacing(1)), reached)
        few = true & (entries.rank < _FEW)
        recall[:, t] = weight[:, few].sum(1) / np.maximum(1, needed)
    undefined = needed == 0
    precision[undefined] = recall[undefined] = np.nan
    return precision, recall


def _entries(matches: Mapping[Id, Matches], place: Mapping[Id, int]) -> _Entries:
    sizes = [len(one.predictions) for one in matches.values()]
    score = np.array([p.score for one in matches.values() for p in one.predictions])
    order = np.argsort(-score, kind="stable")
    return _Entries(
        video=np.repeat([place[v] for v in matches], sizes)[order],
        rank=np.concatenate([np.arange(size) for size in sizes])[order],
        matched=np.concatenate([m.matched[0] for m in matches.values()], 1)[:, order],
        ignored=np.concatenate([m.ignored[0] for m in matches.values()], 1)[:, order],
    )


def _area(precision: np.ndarray, recall: np.ndarray) -> np.ndarray:
    """Computes mean precision over the recall points, from the true positives.

    Between true positives precision only falls, so no other prediction is on the
    envelope. Copies of a prediction drawn twice have equal scores and share a rank.

    Args:
      precision, recall: float64[S, k], best score first.

    Returns:
      float64[S].
    """
    envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    points = np.searchsorted(RECALL_POINTS, recall, side="right")
    gained = np.diff(points, axis=1, prepend=0)
    return (envelope * gained).sum(1) / len(RECALL_POINTS)


def _mean(values: np.ndarray) -> np.ndarray:
    """Returns the mean over the first axis, ignoring NaN; NaN if all are NaN."""
    defined = ~np.isnan(values)
    total = np.where(defined, values, 0.0).sum(0)
    count = defined.sum(0)
    return np.where(count > 0, total / np.maximum(1, count), np.nan)
