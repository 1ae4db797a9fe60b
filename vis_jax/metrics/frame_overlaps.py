"""Per-frame overlap of tracks, by masks or by their bounding boxes.

Letters: D predicted tracks, G annotated tracks, T frames, of one video.
"""

from typing import NamedTuple

import numpy as np
from pycocotools import mask as coco_mask

from vis_jax.formats.tracks import ResultTrack, Track, TruthTrack
from vis_jax.metrics.tube_overlap import frame_intersection


class VideoOverlaps(NamedTuple):
    """Per-frame IoU between the tracks and all predictions of one video."""

    truth_ids: list[np.ndarray]  # T times int64, 0 .. G - 1, present in the frame
    result_ids: list[np.ndarray]  # T times int64, 0 .. D - 1
    ious: list[np.ndarray]  # T times float64[present G, present D]
    scores: np.ndarray  # float64[D]
    num_truths: int  # G


def video_overlaps(
    truths: list[TruthTrack],
    predictions: list[ResultTrack],
    *,
    kind: str,
    class_aware: bool,
) -> VideoOverlaps:
    """Computes the IoU of all tracks of one video, frame by frame.

    Args:
      truths, predictions: G and D tracks.
      kind: "mask" or "box".
      class_aware: IoU between different categories is 0.
    """
    tracks: list[Track] = [*truths, *predictions]
    frames = max((len(track.areas) for track in tracks), default=0)
    groups = _category_pairs(truths, predictions) if class_aware else None
    measure = _mask_iou if kind == "mask" else _box_iou
    truth_ids, result_ids, ious = [], [], []
    for t in range(frames):
        rows, columns = _present(truths, t), _present(predictions, t)
        iou = np.zeros((len(rows), len(columns)))
        for g, d in _blocks(groups, rows, columns):
            iou[g[:, None], d] = measure(
                [truths[i] for i in rows[g]], [predictions[i] for i in columns[d]], t
            )
        truth_ids.append(rows)
        result_ids.append(columns)
        ious.append(iou)
    scores = np.array([track.score for track in predictions])
    return VideoOverlaps(truth_ids, result_ids, ious, scores, len(truths))


def _category_pairs(
    truths: list[TruthTrack], predictions: list[ResultTrack]
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Returns masks (bool[G], bool[D]) for each category present in both."""
    ids_g = [x.category_id for x in truths]
    ids_d = [x.category_id for x in predictions]
    return [
        (np.array([i == c for i in ids_g]), np.array([i == c for i in ids_d]))
        for c in dict.fromkeys(ids_g)
        if c in ids_d
    ]


def _blocks(
    groups: list[tuple[np.ndarray, np.ndarray]] | None,
    rows: np.ndarray,
    columns: np.ndarray,
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Returns index blocks of a frame's tracks that are compared with each other."""
    if groups is None:
        blocks = [(np.arange(len(rows)), np.arange(len(columns)))]
    else:
        blocks = [(g[rows].nonzero()[0], d[columns].nonzero()[0]) for g, d in groups]
    return [(g, d) for g, d in blocks if len(g) and len(d)]


def _present(tracks: list, t: int) -> np.ndarray:
    present = [i for i, x in enumerate(tracks) if t < len(x.areas) and x.areas[t] > 0]
    return np.array(present, np.int64)


def _mask_iou(truths: list, predictions: list, t: int) -> np.ndarray:
    areas = [np.array([x.areas[t] for x in tracks]) for tracks in (truths, predictions)]
    shared = frame_intersection(
        [x.segmentations[t] for x in truths],
        [x.segmentations[t] for x in predictions],
        areas[0],
    )
    return shared / (areas[0][:, None] + areas[1] - shared)


def _box_iou(truths: list, predictions: list, t: int) -> np.ndarray:
    """Computes the IoU of mask bounding boxes, whose x2, y2 are exclusive."""
    boxes = [
        coco_mask.toBbox([x.segmentations[t] for x in tracks])
        for tracks in (truths, predictions)
    ]
    a, b = (
        np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], 1) for xywh in boxes
    )
    return box_iou(a, b)


def box_iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Computes the IoU [N, M] of x1 y1 x2 y2 boxes [N, 4] and [M, 4]."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = np.prod(np.maximum(high - low, 0.0), -1)
    area_a, area_b = (np.prod(box[:, 2:] - box[:, :2], -1) for box in (a, b))
    return shared / np.maximum(area_a[:, None] + area_b[None] - shared, 1e-9)
