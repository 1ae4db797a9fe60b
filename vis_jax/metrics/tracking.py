"""Tracking metrics for video instances: HOTA, CLEAR and identity.

CLEAR is also computed by the rules of py-motmetrics. Crowd tracks are ignored; an empty
mask counts as absent. Letters: D predicted tracks, G annotated tracks, of one video.
"""

from collections import defaultdict
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from vis_jax.formats.tracks import Id, Results, ResultTrack, TruthFile
from vis_jax.metrics import clear_motmetrics, hota
from vis_jax.metrics.assignment import assign
from vis_jax.metrics.clear import (
    Clear,
    Identity,
    clear,
    identity,
    shared_frames,
    total,
    total_identity,
)
from vis_jax.metrics.frame_overlaps import VideoOverlaps, video_overlaps

IOU_THRESHOLD = 0.5  # least IoU of a match; for CLEAR and identity
SWEEP = np.round(np.arange(0.0, 1.0, 0.05), 2)  # score thresholds


IDENTITIES = ("IDF1", "AssA", "IDSW")  # reported by default


class Measures(NamedTuple):
    """Tracking metrics of one video, or pooled over several."""

    hota: hota.Hota
    clear: Clear
    identity: Identity
    motmetrics: clear_motmetrics.Counts


def tracking_scores(
    truth: TruthFile,
    results: Results,
    *,
    kind: str = "mask",
    class_aware: bool = True,
    score_threshold: float = 0.3,
    sweep: bool = False,
    progress: bool = False,
) -> dict:
    """Computes tracking metrics, pooled over all videos by adding counts.

    Args:
      truth, results: as read by `results_json`.
      kind: "mask", or "box" for the tight boxes around the masks.
      class_aware: tracks of different categories never match.
      score_threshold: predictions below it are ignored.
      sweep: also find the score threshold with the best IDF1.
      progress: show a bar if it takes more than some seconds.

    Returns:
      HOTA, DetA, AssA, LocA, DetRe, DetPr, AssRe, AssPr (means over 19 thresholds),
      MOTA, sMOTA, MOTP, Re, Pr, IDF1, IDP, IDR as fractions, None if no annotated track
      is ever visible; IDSW, Frag, MT, PT, ML and the counts TP, FN, FP, IDTP, IDFN,
      IDFP; `motmetrics`: see `Counts.report`; `videos`: the same by video id; with
      `sweep`, `best`: {score_threshold, IDF1}.

    Raises:
      ValueError: an unknown kind.
    """
    found, curve = measure_videos(
        truth,
        results,
        kind=kind,
        class_aware=class_aware,
        score_threshold=score_threshold,
        sweep=sweep,
        progress=progress,
    )
    return tracking_report(found, curve)


def measure_videos(
    truth: TruthFile,
    results: Results,
    *,
    kind: str,
    class_aware: bool,
    score_threshold: float,
    sweep: bool,
    progress: bool,
) -> tuple[dict[Id, Measures], np.ndarray | None]:
    """Computes the measures of each video that `tracking_scores` pools.

    Args:
      truth, results, kind, class_aware, score_threshold, sweep, progress: as in
        `tracking_scores`.

    Returns:
      Measures by video id; with `sweep` the counts of `SWEEP`, float64[S, 3].
    """
    overlapping = _overlapping(truth, results.tracks, kind, class_aware)
    found: dict[Id, Measures] = {}
    curve = np.zeros((len(SWEEP), 3)) if sweep else None
    bar = tqdm(
        overlapping, "tracking", len(truth.videos), delay=5, disable=not progress
    )
    for video_id, overlaps in bar:
        found[video_id] = measure(overlaps, score_threshold)
        if curve is not None:
            curve += _identity_counts(overlaps)
    return found, curve


def tracking_report(found: dict[Id, Measures], curve: np.ndarray | None) -> dict:
    """Returns the metrics of `tracking_scores` from the output of `measure_videos`."""
    scores = _summary(pool(found))
    scores["videos"] = {video_id: _summary(one) for video_id, one in found.items()}
    if curve is not None:
        scores["best"] = _best_threshold(curve)
    return scores


def identity_scores(
    truth: TruthFile,
    results: Results,
    *,
    kind: str = "mask",
    class_aware: bool = True,
    score_threshold: float = 0.3,
    progress: bool = False,
) -> dict:
    """Computes the three most common identity metrics.

    Args:
      truth, results, kind, class_aware, score_threshold, progress: as in
        `tracking_scores`.

    Returns:
      IDF1, AssA and IDSW, as `tracking_scores`; `videos`: the same by video id.

    Raises:
      ValueError: an unknown kind.
    """
    found = identity_measures(
        truth,
        results,
        kind=kind,
        class_aware=class_aware,
        score_threshold=score_threshold,
        progress=progress,
    )
    return identity_report(found)


def identity_report(found: dict[Id, Measures]) -> dict:
    """Returns the metrics of `identity_scores` from `identity_measures`."""
    rows = {video_id: three(one) for video_id, one in found.items()}
    return three(pool(found)) | {"videos": rows}


def identity_measures(
    truth: TruthFile,
    results: Results,
    *,
    kind: str = "mask",
    class_aware: bool = True,
    score_threshold: float = 0.3,
    progress: bool = False,
) -> dict[Id, Measures]:
    """Computes the measures behind `identity_scores`, without `motmetrics`."""
    kept = [track for track in results.tracks if track.score >= score_threshold]
    overlapping = _overlapping(truth, kept, kind, class_aware)
    count = len(truth.videos)
    bar = tqdm(overlapping, "identities", count, delay=5, disable=not progress)
    return {video_id: _identities(overlaps) for video_id, overlaps in bar}


def _overlapping(
    truth: TruthFile, predictions: list[ResultTrack], kind: str, class_aware: bool
) -> Iterator[tuple[Id, VideoOverlaps]]:
    """Yields the overlaps of each video, ordered by id, without crowd tracks.

    Raises:
      ValueError: an unknown kind.
    """
    if kind not in ("mask", "box"):
        raise ValueError(f"kind: expected 'mask' or 'box', got {kind!r}")
    truths, predicted = _by_video(truth.tracks), _by_video(predictions)
    for video_id in sorted(truth.videos):
        annotated = [track for track in truths[video_id] if not track.crowd]
        yield (
            video_id,
            video_overlaps(
                annotated, predicted[video_id], kind=kind, class_aware=class_aware
            ),
        )


def _identities(overlaps: VideoOverlaps) -> Measures:
    """Computes the measures of one video needed by `identity_scores`."""
    part = _kept(overlaps, np.ones(len(overlaps.scores), bool))
    return Measures(
        hota=hota.hota(part),
        clear=clear(part, iou_threshold=IOU_THRESHOLD),
        identity=identity(part, iou_threshold=IOU_THRESHOLD),
        motmetrics=clear_motmetrics.Counts(),
    )


def three(found: Measures) -> dict[str, float | int | None]:
    """Returns IDF1, AssA and IDSW."""
    row = _summary(found)
    return {key: row[key] for key in IDENTITIES}


def measure(overlaps: VideoOverlaps, score_threshold: float) -> Measures:
    """Computes all tracking metrics of one video.

    Args:
      overlaps: overlaps of all predictions.
      score_threshold: predictions below it are left out.
    """
    kept = overlaps.scores >= score_threshold
    part = _kept(overlaps, kept)
    return Measures(
        hota=hota.hota(part),
        clear=clear(part, iou_threshold=IOU_THRESHOLD),
        identity=identity(part, iou_threshold=IOU_THRESHOLD),
        motmetrics=clear_motmetrics.count(overlaps, kept, iou_threshold=IOU_THRESHOLD),
    )


def pool(videos: dict[Id, Measures]) -> Measures:
    """Pools several videos by adding counts."""
    every = list(videos.values())
    return Measures(
        hota=hota.pooled([one.hota for one in every]),
        clear=total(one.clear for one in every),
        identity=total_identity(one.identity for one in every),
        motmetrics=clear_motmetrics.total(one.motmetrics for one in every),
    )


def _by_video(tracks: list) -> defaultdict:
    groups = defaultdict(list)
    for track in tracks:
        groups[track.video_id].append(track)
    return groups


def _kept(overlaps: VideoOverlaps, kept: np.ndarray) -> VideoOverlaps:
    """Selects the kept predictions, and drops tracks that are never visible.

    Args:
      overlaps: overlaps of all predictions.
      kept: bool[D].
    """
    renumber = np.cumsum(kept) - 1
    keep = [kept[ids] for ids in overlaps.result_ids]
    seen = np.unique(np.concatenate([*overlaps.truth_ids, np.zeros(0, np.int64)]))
    return VideoOverlaps(
        truth_ids=[np.searchsorted(seen, ids) for ids in overlaps.truth_ids],
        result_ids=[
            renumber[ids[k]] for ids, k in zip(overlaps.result_ids, keep, strict=True)
        ],
        ious=[iou[:, k] for iou, k in zip(overlaps.ious, keep, strict=True)],
        scores=overlaps.scores[kept],
        num_truths=len(seen),
    )


def _identity_counts(overlaps: VideoOverlaps) -> np.ndarray:
    """Returns IDTP, annotated and predicted boxes per threshold: float64[S, 3].

    Maximising IDTP minimises IDFP + IDFN: one assignment on the shared frames.
    """
    shared, boxes = shared_frames(overlaps, iou_threshold=IOU_THRESHOLD)
    counts = np.zeros((len(SWEEP), 3))
    for s, threshold in enumerate(SWEEP):
        kept = overlaps.scores >= threshold
        part = shared[:, kept]
        idtp = part[assign(part)].sum()
        counts[s] = idtp, sum(map(len, overlaps.truth_ids)), boxes[kept].sum()
    return counts


def _best_threshold(counts: np.ndarray) -> dict[str, float | None]:
    if not counts[:, 1].any():
        return {"score_threshold": None, "IDF1": None}
    idf1 = 2 * counts[:, 0] / np.maximum(counts[:, 1] + counts[:, 2], 1.0)
    best = int(idf1.argmax())
    return {"score_threshold": float(SWEEP[best]), "IDF1": float(idf1[best])}


def _summary(found: Measures) -> dict:
    means, ratios, identities, motmetrics = (part.report() for part in found)
    fractions: dict[str, float | None] = {**means, **ratios, **identities}
    counts = found.clear._asdict() | found.identity._asdict()
    del counts["iou"]
    if not found.clear.TP + found.clear.FN:
        fractions = dict.fromkeys(fractions)
    return {**fractions, **counts, "motmetrics": motmetrics}
