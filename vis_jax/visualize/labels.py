"""Places labels beside their objects, avoiding other labels and small objects."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

GAP = 2  # pixels between an object and its label
STEPS = 4  # stacked positions above and below an object
# Weights of a position's cost: covered share of other labels and of object boxes,
# distance to its box and to its anchor in label heights, and its rank.
LABEL, HIDDEN, AWAY, FAR, LATER = 100.0, 4.0, 0.3, 0.03, 0.02


class Rectangle(NamedTuple):
    """Rectangle in pixels; x2 and y2 are exclusive."""

    x1: int
    y1: int
    x2: int
    y2: int


class Labelled(NamedTuple):
    """Object with a label."""

    box: Rectangle  # box of the object
    anchor: tuple[int, int]  # x and y of the pixel to label
    size: tuple[int, int]  # height and width of the label in pixels


def place_labels(
    objects: Sequence[Labelled], frame_size: tuple[int, int]
) -> list[Rectangle]:
    """Returns a position for each label, inside the frame if it fits.

    Args:
      objects: earlier ones get better positions.
      frame_size: height and width in pixels.
    """
    boxes = np.array([one.box for one in objects], np.float32).reshape(-1, 4)
    taken: list[Rectangle] = []
    for one in objects:
        places = _places(one, frame_size)
        cost = HIDDEN * _shares(places, boxes).sum(axis=1)
        if taken:
            others = np.array(taken, np.float32)
            cost += LABEL * _shares(places, others).sum(axis=1)
        low, high = places[:, :2], places[:, 2:]
        gap = np.maximum(np.maximum(one.box[:2] - high, low - one.box[2:]), 0)
        far = np.abs((low + high) / 2 - one.anchor)
        distance = AWAY * gap.sum(axis=1) + FAR * far.sum(axis=1)
        cost += distance / one.size[0] + LATER * np.arange(len(places))
        taken.append(Rectangle(*places[int(cost.argmin())].astype(int).tolist()))
    return taken


def _places(one: Labelled, frame_size: tuple[int, int]) -> np.ndarray:
    """Returns candidate positions of a label: float32 [n, 4], preferred ones first."""
    (x1, y1, x2, y2), (x, y), (height, width) = one
    middle, centre = x - width // 2, (x1 + x2 - width) // 2
    side, step = (y1 + y2 - height) // 2, height + 1
    above = [(middle, y - height - GAP - k * step) for k in range(STEPS)]
    below = [(centre, y2 + GAP + k * step) for k in range(STEPS)]
    beside = [(left, side) for left in (x2 + GAP, x1 - width - GAP)]
    corners = [
        (left, top)
        for top in (y1 - height - GAP, y2 + GAP)
        for left in (x2 + GAP, x1 - width - GAP)
    ]
    inside = [(middle, y + GAP), (centre, y2 - height - GAP)]
    found = np.array([*above, *below, *beside, *corners, *inside], np.float32)
    most = np.array([frame_size[1] - width, frame_size[0] - height])
    found = np.clip(found, 0, np.maximum(most, 0))
    return np.concatenate([found, found + (width, height)], axis=1).astype(np.float32)


def _shares(places: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Returns the fraction of each box covered by each position: [n, m]."""
    low = np.maximum(places[:, None, :2], boxes[None, :, :2])
    high = np.minimum(places[:, None, 2:], boxes[None, :, 2:])
    covered = np.maximum(high - low, 0).prod(axis=2)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    return covered / np.maximum(area, 1)
