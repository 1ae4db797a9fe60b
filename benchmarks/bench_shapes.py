"""Measures how fast moving shapes are rendered on one core.

Run: python benchmarks/bench_shapes.py [--videos 10]

`whole` renders all frames of a video, `pairs` a new video for every two frames, as in
training; both include the time to draw the scene.
"""

import argparse
import platform
import time
from collections.abc import Callable

import numpy as np

from data_pipeline.moving_shapes.dataset import MovingShapes
from data_pipeline.moving_shapes.motion import DIFFICULTIES

SIZES = ((64, 96), (96, 160), (180, 320), (360, 640))


def rate(draw: Callable[[int], int], videos: int) -> float:
    """Returns frames per second of processor time; `draw` returns its frames."""
    draw(0)
    start = time.process_time()
    frames = sum(draw(index) for index in range(1, videos + 1))
    return frames / (time.process_time() - start)


def measure(difficulty: str, height: int, width: int, videos: int) -> tuple[float, ...]:
    """Returns frames per second for whole videos and for pairs of frames."""
    dataset = MovingShapes(
        num_videos=videos + 1,
        height=height,
        width=width,
        length=24,
        difficulty=difficulty,
    )

    def whole(index: int) -> int:
        return len(dataset.render(index, np.arange(24)).images)

    def pair(index: int) -> int:
        return len(dataset.render(index, np.array([3, 5])).images)

    return rate(whole, videos), rate(pair, videos)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--videos", type=int, default=10, help="videos of each row")
    videos = parser.parse_args().videos
    print(f"device: {platform.machine()} CPU, one core; NumPy {np.__version__}\n")
    print("| difficulty | size | whole, frames/s | pairs, frames/s |")
    print("| --- | --- | --- | --- |")
    for difficulty in DIFFICULTIES:
        for height, width in SIZES:
            whole, pairs = measure(difficulty, height, width, videos)
            size = f"{height} x {width}"
            print(f"| {difficulty} | {size} | {whole:.0f} | {pairs:.0f} |")


if __name__ == "__main__":
    main()
