"""Makes frames of synthetic tracks."""

from collections.abc import Iterator

import numpy as np
from pycocotools import mask as coco_mask

from vis_jax.results.frame import FrameResult, LiveTracks

SIZE = (6, 8)  # height, width
CATEGORIES = ((3, "cat"), (7, "dog"), (8, "a bird"))


def rle(mask: np.ndarray) -> dict:
    return coco_mask.encode(np.asfortranarray(mask))


def box(x: int, y: int, width: int, height: int) -> np.ndarray:
    mask = np.zeros(SIZE, bool)
    mask[y : y + height, x : x + width] = True
    return mask


def frame(t: int, tracks: LiveTracks, masks: dict[int, np.ndarray]) -> FrameResult:
    """Makes a frame with masks by row of the tracks."""
    return FrameResult(
        t, tracks, np.array(list(masks), int), [rle(m) for m in masks.values()], SIZE
    )


def video(seed: int, frames: int, clip: int = 1) -> Iterator[FrameResult]:
    """Draws tracks that appear and disappear, some with equal probabilities."""
    rng = np.random.default_rng(seed)
    live: dict[int, np.ndarray] = {}
    number = 1
    for start in range(0, frames, clip):
        live = {i: probs for i, probs in live.items() if rng.random() > 0.2}
        while len(live) < 2 or rng.random() < 0.3:
            live[number] = rng.integers(0, 8, 3) / 8
            number += 1
        for i in list(live):
            live[i] = rng.integers(0, 8, 3) / 8
        order = rng.permutation(list(live)).astype(np.int32)
        probs = np.array([live[i] for i in order.tolist()], np.float32)
        tracks = LiveTracks(order, probs, lost=start)
        for t in range(start, min(start + clip, frames)):
            rows = [row for row in range(len(order)) if rng.random() < 0.7]
            masks = {row: rng.random(SIZE) < rng.choice([0, 0.5]) for row in rows}
            yield frame(t, tracks, masks)
