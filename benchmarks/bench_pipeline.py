"""How fast training clips are read from a folder of 1280 x 720 JPEGs.

Run: python benchmarks/bench_pipeline.py [--clips 200]

It draws a small data set into a temporary folder (moving shapes, masks as run lengths)
and counts the clips that the tf.data pipeline makes of it: two frames, short side 480,
flipped half of the time. A core's rate is clips per second of processor time, over all
threads, and does not depend on how many cores there are or what else they do.
"""

import argparse
import json
import os
import platform
import tempfile
import time
from itertools import islice
from pathlib import Path

from ml_collections import ConfigDict
from PIL import Image

from data_pipeline.datasets import make_dataset
from data_pipeline.datasets.moving_shapes import MovingShapes
from data_pipeline.datasets.to_ytvis import to_ytvis
from data_pipeline.pipeline import train_batches

HEIGHT, WIDTH, VIDEOS, LENGTH = 720, 1280, 6, 6


def write_folder(root: Path) -> None:
    """Draws the data set."""
    shapes = MovingShapes(
        num_videos=VIDEOS,
        height=HEIGHT,
        width=WIDTH,
        length=LENGTH,
        difficulty="medium",
    )
    (root / "instances.json").write_text(json.dumps(to_ytvis(shapes)))
    for index, video in enumerate(shapes.videos):
        frames = shapes.read_frames(index, range(LENGTH))
        for name, frame in zip(video.file_names, frames, strict=True):
            file = root / "JPEGImages" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(frame).save(file, quality=90)


def settings(root: Path, short_side: int, frames: int) -> ConfigDict:
    """Clips as IFR trains on them."""
    tall = -(-short_side // 32) * 32
    return ConfigDict(
        dict(
            name="folder",
            root=str(root),
            split="train",
            held_out=(),
            frames=frames,
            frame_range=20,
            short_side=(short_side,),
            long_side=1333,
            canvas=(tall, -(-short_side * 16 // 9 // 32) * 32),
            instances=20,
            crop=None,
            flip=0.5,
            colour=0.0,
            batch_size=8,
        )
    )


def measure(config: ConfigDict, clips: int) -> tuple[float, float]:
    """Clips per second: of processor time, of wall time."""
    batches = train_batches(make_dataset(config), config, seed=0, start_step=0)
    for _ in islice(batches, 4):  # fill the queues, let tf.data choose its threads
        pass
    processor, wall = time.process_time(), time.perf_counter()
    count = -(-clips // config.batch_size)
    for _ in islice(batches, count):
        pass
    made = count * config.batch_size
    processor = time.process_time() - processor
    return made / processor, made / (time.perf_counter() - wall)


def cpu_model() -> str:
    """The processor as Linux names it, or what Python knows."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=200, help="clips of each row")
    clips = parser.parse_args().clips
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_folder(root)
        files = list(root.rglob("*.jpg"))
        size = sum(file.stat().st_size for file in files) / len(files) / 1024
        print(f"device: {cpu_model()}, {os.cpu_count()} cores")
        print(f"images: {WIDTH} x {HEIGHT}, {size:.0f} KiB on average\n")
        print("| short side | frames | clips/s/core | clips/s, all cores |")
        print("| --- | --- | --- | --- |")
        for short_side, frames in ((360, 2), (480, 2), (480, 5), (720, 2)):
            core, wall = measure(settings(root, short_side, frames), clips)
            print(f"| {short_side} | {frames} | {core:.1f} | {wall:.1f} |", flush=True)


if __name__ == "__main__":
    main()
