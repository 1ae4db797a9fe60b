"""Measures how fast masks, outlines and labels are drawn on one core.

Run: python -m benchmarks.bench_draw [--size 720 1280] [--objects 10]

The scene is ellipses of several sizes on noise. Times are processor times, so that
other processes do not count. If supervision is installed, it draws the same masks and
labels for comparison (MaskAnnotator, PolygonAnnotator, LabelAnnotator).
"""

import argparse
import importlib.util
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from vis_jax.visualize.draw import draw_frame


def scene(size: tuple[int, int], objects: int) -> tuple[np.ndarray, np.ndarray]:
    """Makes a frame uint8 [H, W, 3] and masks bool [N, H, W]."""
    height, width = size
    rng = np.random.default_rng(0)
    frame = rng.integers(0, 256, (height, width, 3), np.uint8)
    y, x = np.mgrid[:height, :width]
    masks = []
    for _ in range(objects):
        cy, cx = rng.uniform(0.1, 0.9, 2) * size
        ry, rx = rng.uniform(0.03, 0.25, 2) * height
        masks.append(((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2 <= 1)
    return frame, np.array(masks)


def milliseconds(draw: Callable[[], object], rounds: int = 20) -> float:
    """Returns the median time of a call in milliseconds."""
    draw()
    times = []
    for _ in range(rounds):
        begin = time.process_time()
        draw()
        times.append(time.process_time() - begin)
    return 1000 * float(np.median(times))


def peer(frame: np.ndarray, masks: np.ndarray) -> Callable[[], object]:
    """Draws the same with supervision."""
    import supervision as sv

    count = len(masks)
    ids = np.arange(1, count + 1)
    found = sv.Detections(
        xyxy=sv.mask_to_xyxy(masks), mask=masks, tracker_id=ids, class_id=ids
    )
    texts = [f"{i} dog 0.90" for i in ids]

    def draw() -> None:
        drawn = sv.MaskAnnotator().annotate(frame.copy(), found)
        drawn = sv.PolygonAnnotator().annotate(drawn, found)
        sv.LabelAnnotator().annotate(drawn, found, labels=texts)

    return draw


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, nargs=2, default=[720, 1280])
    parser.add_argument("--objects", type=int, default=10)
    args = parser.parse_args()
    frame, masks = scene((args.size[0], args.size[1]), args.objects)
    ids = np.arange(1, len(masks) + 1)
    words: dict[str, Any] = dict(
        labels=ids * 0, names=["dog"], scores=np.full(len(ids), 0.9)
    )
    ours = milliseconds(lambda: draw_frame(frame, masks, ids, **words))
    print(f"{args.objects} objects, {args.size[0]} x {args.size[1]}")
    print(f"ours         {ours:8.2f} ms a frame")
    if importlib.util.find_spec("supervision"):
        print(f"supervision  {milliseconds(peer(frame, masks)):8.2f} ms a frame")


if __name__ == "__main__":
    main()
