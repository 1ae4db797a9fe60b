"""Reimplements the official YouTube-VIS evaluator loop by loop, for bench_score.

Written from its rules with the same loops and the same pycocotools calls, on one
thread: areas and boxes of all predicted masks while loading; two merges and two areas
for each prediction, track and frame; matching for every category, area range and video;
accumulation for every category, area range and limit. Only printing is omitted.
`tests/metrics/reference_ap.py` has the same rules on decoded masks: it is the reference
for results, this one for cost.
"""

import json
from collections import defaultdict
from pathlib import Path

import numpy as np
from pycocotools import mask as coco_mask

THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0.0, 1.0, 101)
AREAS = ((0, 1e10), (0, 128**2), (128**2, 256**2), (256**2, 1e10))
LIMITS = (1, 10, 100)


def load(folder: Path) -> tuple[dict, list]:
    """Loads truth.json and results.json of a folder; adds areas, boxes, mean areas."""
    truth = json.loads((folder / "truth.json").read_text())
    results = json.loads((folder / "results.json").read_text())
    for number, entry in enumerate(results, 1):
        frames = entry["segmentations"]
        entry["areas"] = [rle and coco_mask.area(rle) for rle in frames]
        entry["bboxes"] = [rle and coco_mask.toBbox(rle) for rle in frames]
        entry.update(id=number, iscrowd=0)
    for entry in (*truth["annotations"], *results):
        known = [area for area in entry["areas"] if area]
        entry["mean_area"] = np.array(known).mean() if known else 0
    return truth, results


def evaluate(truth: dict, results: list) -> dict[str, float]:
    """Returns AP, AP50, AP75, APs, APm, APl, AR1, AR10, AR100, ARs, ARm, ARl; -1:
    undefined."""
    videos = sorted({video["id"] for video in truth["videos"]})
    categories = sorted(category["id"] for category in truth["categories"])
    truths, predictions = defaultdict(list), defaultdict(list)
    for entry in truth["annotations"]:
        entry["ignore"] = entry["iscrowd"]
        truths[entry["video_id"], entry["category_id"]].append(entry)
    for entry in results:
        predictions[entry["video_id"], entry["category_id"]].append(entry)
    ious = {
        (video, category): _ious(predictions[video, category], truths[video, category])
        for video in videos
        for category in categories
    }
    matches = [
        [
            [
                _match(predictions[key], truths[key], ious[key], area)
                for key in ((video, category) for video in videos)
            ]
            for area in AREAS
        ]
        for category in categories
    ]
    return _summarise(*_accumulate(matches))


def _best_first(predictions: list) -> list:
    order = np.argsort([-entry["score"] for entry in predictions], kind="mergesort")
    return [predictions[i] for i in order[: LIMITS[-1]]]


def _ious(predictions: list, truths: list) -> np.ndarray:
    if not predictions and not truths:
        return np.zeros((0, 0))
    best = _best_first(predictions)
    ious = np.zeros((len(best), len(truths)))
    for g, truth in enumerate(truths):
        for d, prediction in enumerate(best):
            ious[d, g] = _tube_iou(prediction["segmentations"], truth["segmentations"])
    return ious


def _tube_iou(prediction: list, truth: list) -> float:
    intersection = union = 0.0
    for a, b in zip(prediction, truth, strict=False):  # up to the shorter list
        if a and b:
            intersection += coco_mask.area(coco_mask.merge([a, b], True))
            union += coco_mask.area(coco_mask.merge([a, b], False))
        elif a or b:
            union += coco_mask.area(a or b)
    return intersection / union if union else 0.0


def _match(
    predictions: list, truths: list, ious: np.ndarray, area: tuple
) -> tuple | None:
    """Matches one video, category and area range: scores, matches, ignore flags."""
    if not predictions and not truths:
        return None
    for g in truths:
        g["_ignore"] = int(
            g["ignore"] or g["mean_area"] < area[0] or g["mean_area"] > area[1]
        )
    order = np.argsort([g["_ignore"] for g in truths], kind="mergesort")
    truths = [truths[i] for i in order]
    predictions = _best_first(predictions)
    crowd = [int(g["iscrowd"]) for g in truths]
    ious = ious[:, order] if len(ious) > 0 else ious
    T, G, D = len(THRESHOLDS), len(truths), len(predictions)
    truth_match, match = np.zeros((T, G)), np.zeros((T, D))
    truth_ignore = np.array([g["_ignore"] for g in truths])
    ignore = np.zeros((T, D))
    if len(ious) > 0:
        for t, threshold in enumerate(THRESHOLDS):
            for d, prediction in enumerate(predictions):
                best, partner = min(threshold, 1 - 1e-10), -1
                for g in range(G):
                    if truth_match[t, g] > 0 and not crowd[g]:
                        continue
                    if (
                        partner > -1
                        and truth_ignore[partner] == 0
                        and truth_ignore[g] == 1
                    ):
                        break
                    if ious[d, g] < best:
                        continue
                    best, partner = ious[d, g], g
                if partner == -1:
                    continue
                ignore[t, d] = truth_ignore[partner]
                match[t, d] = truths[partner]["id"]
                truth_match[t, partner] = prediction["id"]
    outside = np.array(
        [p["mean_area"] < area[0] or p["mean_area"] > area[1] for p in predictions]
    ).reshape(1, D)
    ignore = np.logical_or(
        ignore, np.logical_and(match == 0, np.repeat(outside, T, axis=0))
    )
    return ([p["score"] for p in predictions], match, ignore, truth_ignore)


def _accumulate(matches: list) -> tuple[np.ndarray, np.ndarray]:
    """Computes precision [T, R, K, A, M] and recall [T, K, A, M]; -1 if undefined."""
    shape = (len(THRESHOLDS), len(matches), len(AREAS), len(LIMITS))
    precision = -np.ones((shape[0], len(RECALLS), *shape[1:]))
    recall = -np.ones(shape)
    for k, of_category in enumerate(matches):
        for a, of_area in enumerate(of_category):
            for m, limit in enumerate(LIMITS):
                cells = [cell for cell in of_area if cell is not None]
                if not cells:
                    continue
                score = np.concatenate([cell[0][:limit] for cell in cells])
                order = np.argsort(-score, kind="mergesort")
                match, ignore = (
                    np.concatenate([c[i][:, :limit] for c in cells], axis=1)[:, order]
                    for i in (1, 2)
                )
                ignored = np.concatenate([c[3] for c in cells])
                needed = int(np.count_nonzero(ignored == 0))
                if needed == 0:
                    continue
                true = np.logical_and(match, np.logical_not(ignore))
                false = np.logical_and(np.logical_not(match), np.logical_not(ignore))
                true = np.cumsum(true, axis=1).astype(float)
                false = np.cumsum(false, axis=1).astype(float)
                for t, (tp, fp) in enumerate(zip(true, false, strict=True)):
                    recall[t, k, a, m] = tp[-1] / needed if len(tp) else 0
                    precision[t, :, k, a, m] = _interpolated(tp, fp, needed)
    return precision, recall


def _interpolated(true: np.ndarray, false: np.ndarray, needed: int) -> np.ndarray:
    """Returns precision at the recall points, from cumulative counts."""
    reached = true / needed
    precision = (true / (false + true + np.spacing(1))).tolist()
    points = np.zeros(len(RECALLS)).tolist()
    for i in range(len(precision) - 1, 0, -1):
        if precision[i] > precision[i - 1]:
            precision[i - 1] = precision[i]
    for r, i in enumerate(np.searchsorted(reached, RECALLS, side="left")):
        if i >= len(precision):
            break
        points[r] = precision[i]
    return np.array(points)


def _summarise(precision: np.ndarray, recall: np.ndarray) -> dict[str, float]:
    def mean(values: np.ndarray) -> float:
        defined = values[values > -1]
        return float(np.mean(defined)) if defined.size else -1.0

    rows = {
        "AP": precision[..., 0, -1],
        "AP50": precision[0, ..., 0, -1],
        "AP75": precision[5, ..., 0, -1],
    }
    rows |= {f"AP{x}": precision[..., a, -1] for a, x in enumerate("sml", 1)}
    rows |= {f"AR{limit}": recall[..., 0, m] for m, limit in enumerate(LIMITS)}
    rows |= {f"AR{x}": recall[..., a, -1] for a, x in enumerate("sml", 1)}
    return {name: mean(values) for name, values in rows.items()}
