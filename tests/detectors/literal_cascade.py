"""Interleaved training of a cascade on one image without sampling of regions; float64.

Written from the method's description alone: assign proposals and ground-truth boxes,
compute box losses on all, refine them, assign the refined proposals again, compute mask
losses on positives, and continue with the refined boxes.
"""

from typing import NamedTuple

import numpy as np

MOST = np.log(1000 / 16)
CELLS = 28


class Stage(NamedTuple):
    """Outputs of a stage, and its training settings."""

    class_logits: object  # boxes [N, 4] -> [N, K + 1]
    deltas: object  # boxes [N, 4] -> [N, 4]
    mask_logits: object  # box [4] -> [28, 28, K]
    iou: float
    stds: tuple


class Trained(NamedTuple):
    classes: float
    boxes: float
    masks: float
    positives: list  # (box, index of its ground-truth box) of the mask head, unordered
    moved: np.ndarray


def iou_of(a, b):
    sides = [min(a[i + 2], b[i + 2]) - max(a[i], b[i]) for i in (0, 1)]
    if min(sides) <= 0:
        return 0.0
    areas = [(x[2] - x[0]) * (x[3] - x[1]) for x in (a, b)]
    return sides[0] * sides[1] / (sum(areas) - sides[0] * sides[1])


def assign(boxes, objects, threshold):
    """Returns the object of each box; -1 = background."""
    table = np.array([[iou_of(box, x) for x in objects] for box in boxes])
    owner = np.full(len(boxes), -1)
    for place, row in enumerate(table):
        if row.max() >= threshold:
            owner[place] = row.argmax()
    for number, column in enumerate(table.T):
        if column.max() >= threshold:
            owner[column == column.max()] = number
    return owner


def encode(box, target, stds):
    x, y, w, h = _centre(box)
    tx, ty, tw, th = _centre(target)
    raw = [(tx - x) / w, (ty - y) / h, np.log(tw / w), np.log(th / h)]
    return np.array(raw) / stds


def decode(box, deltas, stds, size):
    x, y, w, h = _centre(box)
    dx, dy, dw, dh = deltas * stds
    x, y = x + dx * w, y + dy * h
    w, h = (side * np.exp(np.clip(d, -MOST, MOST)) for side, d in ((w, dw), (h, dh)))
    moved = np.array([x - w / 2, y - h / 2, x + w / 2, y + h / 2])
    return np.clip(moved, 0, [size[1], size[0], size[1], size[0]])


def _centre(box):
    w, h = box[2] - box[0], box[3] - box[1]
    return box[0] + w / 2, box[1] + h / 2, w, h


def crop(mask, box):
    """Applies aligned RoIAlign to a bitmap, with ceil(side / 28) points per axis."""
    low, sides = box[:2] - 0.5, (box[2:] - box[:2]) / CELLS
    weights = []
    for start, side, length in zip(low, sides, mask.shape[::-1], strict=True):
        count = max(int(np.ceil(side)), 1)
        table = np.zeros((CELLS, length))
        for cell, number in np.ndindex(CELLS, count):
            at = start + side * (cell + (number + 0.5) / count)
            if not -1 <= at <= length:
                continue
            at = np.clip(at, 0, length - 1)
            first = int(at)
            table[cell, first] += (first + 1 - at) / count
            if first + 1 < length:
                table[cell, first + 1] += (at - first) / count
        weights.append(table)
    return weights[1] @ mask @ weights[0].T >= 0.5


def train_stage(stage, boxes, objects, labels, masks, size):
    """Returns the losses of a stage on `boxes`, and the boxes of the next stage."""
    background = stage.class_logits(boxes[:1]).shape[1] - 1
    owner = np.append(np.arange(len(objects)), assign(boxes, objects, stage.iou))
    samples = np.concatenate([objects, boxes])
    logits, deltas = stage.class_logits(samples), stage.deltas(samples)
    classes = box_loss = 0.0
    for place, number in enumerate(owner):
        label = background if number < 0 else labels[number]
        classes += np.log(np.exp(logits[place]).sum()) - logits[place, label]
        if number >= 0:
            wanted = encode(samples[place], objects[number], stage.stds)
            error = np.abs(deltas[place] - wanted)
            box_loss += np.where(error < 1, error**2 / 2, error - 0.5).sum()
    moved = [
        decode(box, delta, stage.stds, size)
        for box, delta in zip(boxes, deltas[len(objects) :], strict=True)
    ]
    moved = np.stack(moved)
    owner = np.append(np.arange(len(objects)), assign(moved, objects, stage.iou))
    samples = np.concatenate([objects, moved])
    positives = [(samples[i], owner[i]) for i in np.flatnonzero(owner >= 0)]
    mask_loss = 0.0
    for box, number in positives:
        x = stage.mask_logits(box)[..., labels[number]]
        wanted = crop(masks[number].astype(float), box)
        mask_loss += (np.logaddexp(0, x) - wanted * x).mean()
    return Trained(
        classes / (len(objects) + len(boxes)),
        box_loss / (len(objects) + len(boxes)),
        mask_loss / len(positives),
        positives,
        moved,
    )


def train(stages, boxes, objects, labels, masks, size):
    """Runs all stages in order."""
    results = []
    for stage in stages:
        results.append(train_stage(stage, boxes, objects, labels, masks, size))
        boxes = results[-1].moved
    return results
