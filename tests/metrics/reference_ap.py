"""Slow reference for video AP: the official rules on decoded masks.

Works on the content of the two JSON files. Shares no code with vis_jax.
"""

import numpy as np
from pycocotools import mask as coco_mask

THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0, 1, 101)
AREAS = [(0, 1e10), (0, 16384), (16384, 65536), (65536, 1e10)]
LIMITS = [1, 10, 100]


def mean_area(areas):
    present = [area for area in areas if area]
    return np.array(present).mean() if present else 0


def paint(rle):
    if rle is None:
        return None
    if isinstance(rle["counts"], list):
        rle = coco_mask.frPyObjects(rle, *rle["size"])
    return coco_mask.decode(rle).astype(bool)


def tube_iou(prediction, truth):
    intersection = union = 0.0
    for d, g in zip(prediction, truth, strict=False):  # up to the shorter list
        if d is not None and g is not None:
            if d.shape == g.shape:
                intersection += (d & g).sum()
                union += (d | g).sum()
        elif d is not None:
            union += d.sum()
        elif g is not None:
            union += g.sum()
    return intersection / union if union else 0.0


def prepare(truth, results):
    by_id = {entry["id"]: entry for entry in truth["annotations"]}
    entries = sorted(truth["annotations"], key=lambda entry: entry["video_id"])
    truths = []
    for entry in (by_id[entry["id"]] for entry in entries):
        masks = [paint(rle) for rle in entry["segmentations"]]
        truths.append(dict(entry, masks=masks, area=mean_area(entry["areas"])))
    predictions = []
    for number, entry in enumerate(results, 1):
        masks = [paint(rle) for rle in entry["segmentations"]]
        area = mean_area([None if m is None else m.sum() for m in masks])
        predictions.append(dict(entry, id=number, masks=masks, area=area))
    return truths, predictions


def match(predictions, truths, iou, area_range):
    low, high = area_range
    outside = [g["iscrowd"] or not low <= g["area"] <= high for g in truths]
    order = sorted(range(len(truths)), key=lambda i: outside[i])
    found = np.zeros((len(THRESHOLDS), len(predictions)), int)
    ignored = np.zeros((len(THRESHOLDS), len(predictions)), bool)
    for t, threshold in enumerate(THRESHOLDS):
        taken = set()
        for d, prediction in enumerate(predictions):
            best, partner = min(threshold, 1 - 1e-10), None
            for g in order:
                if g in taken and not truths[g]["iscrowd"]:
                    continue
                if partner is not None and not outside[partner] and outside[g]:
                    break
                if iou[d, g] < best:
                    continue
                best, partner = iou[d, g], g
            if partner is not None:
                taken.add(partner)
                found[t, d] = truths[partner]["id"]
                ignored[t, d] = outside[partner]
            if found[t, d] == 0 and not low <= prediction["area"] <= high:
                ignored[t, d] = True
    return found, ignored, outside.count(False)


def evaluate(truth, results):
    """Computes precision [T, R, K, A, M] and recall [T, K, A, M]."""
    truths, predictions = prepare(truth, results)
    videos = sorted(video["id"] for video in truth["videos"])
    categories = sorted(category["id"] for category in truth["categories"])
    shape = (len(THRESHOLDS), len(categories), len(AREAS), len(LIMITS))
    recall = -np.ones(shape)
    precision = -np.ones((shape[0], len(RECALLS), *shape[1:]))
    for k, category in enumerate(categories):
        cells = []
        for video in videos:
            same = [
                [
                    x
                    for x in xs
                    if (x["video_id"], x["category_id"]) == (video, category)
                ]
                for xs in (predictions, truths)
            ]
            dets = sorted(same[0], key=lambda x: -x["score"])[: LIMITS[-1]]
            iou = np.zeros((len(dets), len(same[1])))
            for d, g in np.ndindex(iou.shape):
                iou[d, g] = tube_iou(dets[d]["masks"], same[1][g]["masks"])
            cells.append((dets, same[1], iou))
        for a, area_range in enumerate(AREAS):
            for m, limit in enumerate(LIMITS):
                curve = accumulate(cells, area_range, limit)
                if curve is not None:
                    precision[:, :, k, a, m], recall[:, k, a, m] = curve
    return precision, recall


def accumulate(cells, area_range, limit):
    rows, needed = [[] for _ in THRESHOLDS], 0
    for dets, truths, iou in cells:
        found, ignored, count = match(dets, truths, iou, area_range)
        needed += count
        for t in range(len(THRESHOLDS)):
            for d in range(min(limit, len(dets))):
                rows[t].append((dets[d]["score"], found[t, d] != 0, ignored[t, d]))
    if needed == 0:
        return None
    precision, recall = np.zeros((len(rows), len(RECALLS))), np.zeros(len(rows))
    for t, row in enumerate(rows):
        true = false = 0
        points = []
        for _, hit, skip in sorted(row, key=lambda x: -x[0]):
            true, false = true + (hit and not skip), false + (not hit and not skip)
            points.append((true / needed, true / (false + true + np.spacing(1))))
        recall[t] = points[-1][0] if points else 0
        for r, point in enumerate(RECALLS):
            precision[t, r] = max((p for x, p in points if x >= point), default=0)
    return precision, recall


def stats(precision, recall):
    """Returns the twelve official metrics, -1 if undefined."""

    def mean(values):
        values = values[values > -1]
        return values.mean() if values.size else -1

    return np.array(
        [mean(precision[..., 0, 2]), mean(precision[0, ..., 0, 2])]
        + [mean(precision[5, ..., 0, 2])]
        + [mean(precision[..., a, 2]) for a in (1, 2, 3)]
        + [mean(recall[..., 0, m]) for m in (0, 1, 2)]
        + [mean(recall[..., a, 2]) for a in (1, 2, 3)]
    )
