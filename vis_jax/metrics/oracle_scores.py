"""Oracle AP with perfect classes, masks or identities.

Each oracle fixes one aspect and keeps everything else, including scores and duplicates.
Letters: D predictions, G annotated tracks, of one video.
"""

from collections import defaultdict
from collections.abc import Callable

import numpy as np

from vis_jax.formats.tracks import (
    Results,
    ResultTrack,
    TruthFile,
    TruthTrack,
    mean_nonzero,
)
from vis_jax.metrics.error_breakdown import FOUND, NEAR
from vis_jax.metrics.frame_overlaps import video_overlaps
from vis_jax.metrics.tube_overlap import tube_overlap
from vis_jax.metrics.video_ap import evaluate, indexed_tracks

Tracks = list[ResultTrack]
Oracle = Callable[[Tracks, list[TruthTrack], np.ndarray], Tracks]


def oracle_scores(
    truth: TruthFile, results: Results, *, official_quirks: bool = True
) -> dict[str, dict[str, float | None]]:
    """Computes the official metrics under each oracle.

    Args:
      truth, results: as read by `results_json`.
      official_quirks: as in `video_ap.evaluate`.

    Returns:
      AP, AP50, .. by oracle name: `classes`, `masks`, `identities`.
    """
    truths, predictions = defaultdict(list), defaultdict(list)
    for annotated in indexed_tracks(truth, official_quirks):
        if annotated.category_id in truth.categories and not annotated.crowd:
            truths[annotated.video_id].append(annotated)
    for track in results.tracks:
        if track.category_id in truth.categories:
            predictions[track.video_id].append(track)
    mended: dict[str, Tracks] = {name: [] for name in ORACLES}
    for video_id, found in predictions.items():
        tracks = truths[video_id]
        if not tracks:
            for name in ORACLES:
                mended[name] += found
            continue
        iou = tube_overlap(found, tracks, official_quirks=official_quirks).iou()
        for name, oracle in ORACLES.items():
            mended[name] += oracle(found, tracks, iou)
    return {
        name: evaluate(
            truth, results._replace(tracks=tracks), official_quirks=official_quirks
        ).stats
        for name, tracks in mended.items()
    }


def with_classes(
    predictions: Tracks, truths: list[TruthTrack], iou: np.ndarray
) -> Tracks:
    """Gives each prediction the class of its best-overlapping track, if IoU >= 0.1.

    Args:
      predictions, truths: D and G tracks of one video.
      iou: float64[D, G], of tubes.
    """
    return [
        one if g < 0 else one._replace(category_id=truths[g].category_id)
        for one, g in zip(predictions, _nearest(iou), strict=True)
    ]


def with_masks(
    predictions: Tracks, truths: list[TruthTrack], iou: np.ndarray
) -> Tracks:
    """Gives each prediction the masks of its best-overlapping track of its class.

    Predictions whose best IoU is below 0.1 keep their masks.

    Args:
      predictions, truths: D and G tracks of one video.
      iou: float64[D, G], of tubes.
    """
    same = [[g.category_id == d.category_id for g in truths] for d in predictions]
    nearest = _nearest(np.where(np.array(same, bool).reshape(iou.shape), iou, 0.0))
    return [
        one if g < 0 else _with_frames(one, truths[g].segmentations, truths[g].areas)
        for one, g in zip(predictions, nearest, strict=True)
    ]


def with_identities(
    predictions: Tracks, truths: list[TruthTrack], iou: np.ndarray
) -> Tracks:
    """Regroups the predicted masks of each frame into annotated tracks.

    In a frame a mask belongs to the track of its class with the highest IoU, at least
    0.5; the best-scoring of several masks is used. Unmatched masks of a prediction join
    its most frequent track where that has no other mask. A track gets the mean score of
    its masks. Predictions that never match a track are unchanged.

    Args:
      predictions, truths: D and G tracks of one video.
      iou: float64[D, G], of tubes; unused, as frames are compared.
    """
    del iou
    owner = _owners(predictions, truths)
    frames: list[dict[int, ResultTrack]] = [{} for _ in truths]
    rest = []
    order = sorted(range(len(predictions)), key=lambda d: -predictions[d].score)
    for d in order:
        for t, g in enumerate(owner[d].tolist()):
            if g >= 0:
                frames[g].setdefault(t, predictions[d])
    for d in order:
        on = owner[d][owner[d] >= 0]
        if not len(on):
            rest.append(predictions[d])
            continue
        most = int(np.bincount(on).argmax())
        alone = (owner[d] < 0) & _visible(predictions[d], owner)
        for t in np.flatnonzero(alone).tolist():
            frames[most].setdefault(t, predictions[d])
    joined = [
        _joined(parts, track, owner.shape[1])
        for parts, track in zip(frames, truths, strict=True)
        if parts
    ]
    return [*joined, *rest]


ORACLES: dict[str, Oracle] = {
    "classes": with_classes,
    "masks": with_masks,
    "identities": with_identities,
}


def _nearest(iou: np.ndarray) -> list[int]:
    """Returns the track with the highest IoU per prediction, -1 if below 0.1.

    Args:
      iou: float64[D, G].
    """
    return np.where(iou.max(1) >= NEAR, iou.argmax(1), -1).tolist()


def _owners(predictions: Tracks, truths: list[TruthTrack]) -> np.ndarray:
    """Returns the track of each prediction in each frame: int64[D, T], -1 for none."""
    overlaps = video_overlaps(truths, predictions, kind="mask", class_aware=True)
    owner = np.full((len(predictions), len(overlaps.ious)), -1)
    for t, (rows, columns, iou) in enumerate(zip(*overlaps[:3], strict=True)):
        if iou.size:
            matched = iou.max(0) >= FOUND
            owner[columns[matched], t] = rows[iou.argmax(0)[matched]]
    return owner


def _visible(prediction: ResultTrack, owner: np.ndarray) -> np.ndarray:
    """Returns the frames in which a prediction has pixels: bool[T]."""
    areas = np.zeros(owner.shape[1], np.int64)
    areas[: len(prediction.areas)] = prediction.areas
    return areas > 0


def _joined(
    parts: dict[int, ResultTrack], track: TruthTrack, length: int
) -> ResultTrack:
    """Merges the masks of several predictions of one annotated track."""
    masks = [parts[t].segmentations[t] if t in parts else None for t in range(length)]
    areas = [parts[t].areas[t] if t in parts else 0 for t in range(length)]
    first = next(iter(parts.values()))
    one = first._replace(
        category_id=track.category_id,
        score=float(np.mean([part.score for part in parts.values()])),
    )
    return _with_frames(one, masks, np.array(areas, np.int64))


def _with_frames(
    prediction: ResultTrack, segmentations: list[dict | None], areas: np.ndarray
) -> ResultTrack:
    return prediction._replace(
        segmentations=segmentations, areas=areas, mean_area=mean_nonzero(areas)
    )
