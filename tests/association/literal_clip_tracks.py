"""MaskProp's Eq. 4 and 5 taken literally: lists, loops and float64.

Letters: L frames of a video, N objects per frame. Frames and clips count from 0.
"""

from typing import NamedTuple

import numpy as np


class Clips(NamedTuple):
    """Masks of each frame's objects in the clip centred at the frame.

    Attributes:
      masks: float64 [L, N, 2 T + 1, P], with P cells per frame; arbitrary outside the
        video and for invalid objects.
      valid: bool [L, N].
      scores: float64 [L, N, K], class scores of the objects.
    """

    masks: np.ndarray
    valid: np.ndarray
    scores: np.ndarray


def radius_of(clips):
    return (clips.masks.shape[2] - 1) // 2


def mask_of(clips, t, i, tau):
    return clips.masks[t, i, tau - t + radius_of(clips)]


def pair_score(clips, t, i, earlier, j):
    """Computes Eq. 4, without frames where both masks are empty."""
    radius, ious = radius_of(clips), []
    first = max(0, t - radius, earlier - radius)
    last = min(len(clips.masks) - 1, t + radius, earlier + radius)
    for tau in range(first, last + 1):
        a, b = mask_of(clips, t, i, tau), mask_of(clips, earlier, j, tau)
        union = sum(x + y - x * y for x, y in zip(a, b, strict=True))
        if union >= 1:
            ious.append(sum(x * y for x, y in zip(a, b, strict=True)) / union)
    return sum(ious) / len(ious) if ious else 0.0


def track_score(clips, ids, t, i, track):
    """Computes Eq. 5 before the threshold; None if no overlapping clip has it."""
    values = [
        pair_score(clips, t, i, earlier, j)
        for earlier in range(max(0, t - 2 * radius_of(clips)), t)
        for j, other in ids[earlier].items()
        if other == track
    ]
    return sum(values) / len(values) if values else None


def link_video(clips, threshold, *, unique):
    """Returns identities {object: id} of each frame, and scores {(t, i): score}."""
    ids, winning, count = [], {}, 0
    for t in range(len(clips.masks)):
        pairs = {}
        for i in np.flatnonzero(clips.valid[t]).tolist():
            for track in range(1, count + 1):
                score = track_score(clips, ids, t, i, track)
                if score is not None and score > threshold:
                    pairs[i, track] = score
        own = {}
        for (i, track), score in sorted(pairs.items(), key=lambda pair: -pair[1]):
            if i not in own and not (unique and track in own.values()):
                own[i], winning[t, i] = track, score
        for i in np.flatnonzero(clips.valid[t]).tolist():
            if i not in own:
                count += 1
                own[i] = count
        ids.append(dict(sorted(own.items())))
    return ids, winning


def class_scores(clips, ids, mode):
    """Returns {id: class scores}."""
    tracks = sorted({track for frame in ids for track in frame.values()})
    out = {}
    for track in tracks:
        rows = [
            clips.scores[t, i]
            for t, frame in enumerate(ids)
            for i, other in frame.items()
            if other == track
        ]
        for c in range(clips.scores.shape[2]):
            labelled = [row[c] for row in rows if row[c] > 0]
            number = len(labelled) if mode == "label_mean" else len(rows)
            out.setdefault(track, []).append(sum(labelled) / max(number, 1))
    return out
