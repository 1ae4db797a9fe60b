"""Detections and clips for the tests of trackers.

Letters: N detections per frame, E channels of an embedding.
"""

from typing import NamedTuple

import numpy as np

from vis_jax.structures import Clip, Detections

CLASSES = 3


class Seen(NamedTuple):
    """Detection for a test."""

    box: tuple[float, float, float, float]
    label: int = 0
    score: float = 0.9
    embed: tuple[float, ...] = (0.0, 0.0, 0.0)


def square(x: float, y: float = 0.0, side: float = 10.0) -> tuple:
    """Returns a square box by its upper left corner."""
    return (x, y, x + side, y + side)


def pack(frames: list[list[Seen]], size: int, seed: int | None = None) -> Detections:
    """Packs lists of detections into arrays [T, N].

    Args:
      frames: detections of each frame.
      size: N.
      seed: of noise in the padding; None: zeros, and label K.
    """
    rng = np.random.default_rng(seed)
    lead, width = (len(frames), size), len(Seen((0, 0, 0, 0)).embed)

    def padding(*shape):
        return rng.normal(size=shape) * 20 if seed is not None else np.zeros(shape)

    boxes, scores = padding(*lead, 4), np.abs(padding(*lead))
    embeds, valid = padding(*lead, width), np.zeros(lead, bool)
    labels = np.full(lead, CLASSES) if seed is None else rng.integers(0, 3, lead)
    for t, frame in enumerate(frames):
        for i, seen in enumerate(frame):
            boxes[t, i], scores[t, i], embeds[t, i] = seen.box, seen.score, seen.embed
            labels[t, i], valid[t, i] = seen.label, True
    return Detections(
        boxes=boxes.astype(np.float32),
        scores=scores.astype(np.float32),
        labels=labels.astype(np.int32),
        valid=valid,
        embeds=embeds.astype(np.float32),
        descriptors=np.zeros((*lead, 0), np.float32),
        mask_logits=np.zeros((*lead, 2, 2), np.float32),
    )


def clip_of(frames: int) -> Clip:
    """Returns a clip with the length of the detections; other fields are unused."""
    return Clip(
        np.zeros((frames, 4, 4, 3), np.uint8),
        np.ones(frames, bool),
        np.array([4, 4], np.int32),
    )


def random_frames(rng, frames: int, most: int) -> list[list[Seen]]:
    """Draws noisy detections of five objects; some frames are empty, labels flicker."""
    centres = rng.uniform(0, 30, (5, 2))
    means = rng.normal(size=(5, 3)) * 2
    kinds = rng.integers(0, CLASSES, 5)
    result = []
    for _ in range(frames):
        count = 0 if rng.random() < 0.2 else rng.integers(1, most + 1)
        frame = []
        for which in rng.integers(0, 5, count):
            x, y = centres[which] + rng.normal(size=2) * 3
            flicker = rng.random() < 0.2
            label = rng.integers(0, CLASSES) if flicker else kinds[which]
            embed = tuple(means[which] + rng.normal(size=3) * 0.5)
            score = rng.uniform(0.05, 1)
            frame.append(Seen(square(x, y), int(label), score, embed))
        result.append(frame)
    return result


def ids_of(track_ids, frames: list[list[Seen]]) -> list[list[int]]:
    """Returns the identities of detections; those of padding must be 0."""
    track_ids = np.asarray(track_ids)
    for row, frame in zip(track_ids, frames, strict=True):
        assert not row[len(frame) :].any()
    return [
        row[: len(frame)].tolist() for row, frame in zip(track_ids, frames, strict=True)
    ]


def iou(a, b) -> float:
    """Computes the IoU of two boxes by definition."""
    width = max(min(a[2], b[2]) - max(a[0], b[0]), 0)
    height = max(min(a[3], b[3]) - max(a[1], b[1]), 0)
    areas = [(x[2] - x[0]) * (x[3] - x[1]) for x in (a, b)]
    return width * height / (sum(areas) - width * height)
