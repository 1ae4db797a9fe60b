"""Measures how fast training clips are read, from a folder of JPEGs and from records.

Run: python benchmarks/bench_pipeline.py [--clips 200] [--records]

It draws a small data set into a temporary folder (moving shapes, RLE masks) and counts
the clips that the tf.data pipeline makes from it: two frames, short side 480, flipped
half of the time. The rate per core is clips per second of processor time over all
threads, independent of the number of cores and of other processes.

With --records, both readers of a 640 x 360 data set take turns: the folder, and the
output of `data build_tfds`; also the cost of two frames of a video if all its frames
were one record.
"""

import argparse
import json
import os
import platform
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image

from data_pipeline.datasets.ytvis import YouTubeVis
from data_pipeline.datasets.ytvis_tfds import TfdsVideos
from data_pipeline.moving_shapes.dataset import MovingShapes
from data_pipeline.pipeline import train_batches
from data_pipeline.settings import Settings
from data_pipeline.write.annotations import to_ytvis
from data_pipeline.write.tfds_builder import build

LARGE = dict(height=720, width=1280, num_videos=6, length=6)
SMALL = dict(height=360, width=640, num_videos=8, length=36)  # as YouTube-VIS 2019
ROUNDS = 5


def write_folder(
    root: Path, *, height: int, width: int, num_videos: int, length: int
) -> None:
    """Writes the data set."""
    shapes = MovingShapes(
        num_videos=num_videos,
        height=height,
        width=width,
        length=length,
        difficulty="medium",
    )
    (root / "instances.json").write_text(json.dumps(to_ytvis(shapes)))
    for index, video in enumerate(shapes.videos):
        frames = shapes.read_frames(index, np.arange(length))
        for name, frame in zip(video.file_names, frames, strict=True):
            file = root / "JPEGImages" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(frame).save(file, quality=90)


def settings(root: Path, short_side: int, frames: int) -> Settings:
    """Returns clip settings as for training IFR."""
    tall = -(-short_side // 32) * 32
    return Settings(
        name="folder",
        root=str(root),
        frames=frames,
        short_side=(short_side,),
        canvas=(tall, -(-short_side * 16 // 9 // 32) * 32),
        batch_size=8,
    )


def measure(config: Settings, clips: int) -> tuple[float, float]:
    """Returns clips per second of processor time, and of wall time."""
    dataset = YouTubeVis(config.root, config.split)
    batches = train_batches(dataset, config, seed=0, start_step=0)
    for _ in islice(batches, 4):  # fill queues and let tf.data choose its threads
        pass
    processor, wall = time.process_time(), time.perf_counter()
    count = -(-clips // config.batch_size)
    for _ in islice(batches, count):
        pass
    made = count * config.batch_size
    processor = time.process_time() - processor
    return made / processor, made / (time.perf_counter() - wall)


def cpu_model() -> str:
    """Returns the processor's name from Linux, or else from Python."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def compare(folder: Path, packed: Path, clips: int) -> None:
    """Prints a table of both readers, run in turns."""
    readers: dict[str, YouTubeVis | TfdsVideos] = {
        "folder": YouTubeVis(folder, "train"),
        "records": TfdsVideos(packed, "train"),
    }
    config = settings(folder, 360, 2)
    rates: dict[str, list[float]] = {name: [] for name in readers}
    batches = {}
    for name, dataset in readers.items():
        batches[name] = train_batches(dataset, config, seed=0, start_step=0)
        for _ in islice(batches[name], 4):
            pass
    count = -(-clips // (ROUNDS * config.batch_size))
    for _ in range(ROUNDS):
        for name in readers:
            rates[name].append(rate(batches[name], count) * config.batch_size)
    print("| reader | clips/s/core | ratio to folder | least to most of a round |")
    print("| --- | --- | --- | --- |")
    for name, values in rates.items():
        ratios = np.array(values) / rates["folder"]
        spread = f"{ratios.min():.2f} - {ratios.max():.2f}"
        middle = f"{np.median(values):.1f} | {np.median(ratios):.2f}"
        print(f"| {name} | {middle} | {spread} |")


def rate(batches: Iterator, count: int) -> float:
    """Returns batches per second of processor time, between two full queues."""
    before = idle()
    for _ in islice(batches, count):
        pass
    return count / (idle() - before)


def idle() -> float:
    """Waits until tf.data has filled its queues; returns the processor time so far."""
    before = time.process_time()
    while True:
        time.sleep(0.2)
        now = time.process_time()
        if now - before < 0.002:
            return now
        before = now


def compare_records(packed: Path) -> None:
    """Compares reading two frames from their own records and from one per video."""
    dataset = TfdsVideos(packed, "train")
    rng = np.random.default_rng(0)
    print("| to read two frames | KiB | ms of processor time |")
    print("| --- | --- | --- |")
    for name, whole in (("a record for a frame", 0), ("a record for a video", 1)):
        size, before, repeats = 0, time.process_time(), 200
        for _ in range(repeats):
            index = int(rng.integers(len(dataset.videos)))
            length = dataset.videos[index].length
            ids = np.arange(length) if whole else rng.permutation(length)[:2]
            size += sum(map(len, dataset.encoded(index, ids)))
        spent = (time.process_time() - before) / repeats * 1000
        print(f"| {name} | {size / repeats / 1024:.0f} | {spent:.2f} |")


def bench_folder(root: Path, clips: int) -> None:
    """Prints a table for several sizes and lengths of clips."""
    write_folder(root, **LARGE)
    files = list(root.rglob("*.jpg"))
    size = sum(file.stat().st_size for file in files) / len(files) / 1024
    print(f"images: 1280 x 720, {size:.0f} KiB on average\n")
    print("| short side | frames | clips/s/core | clips/s, all cores |")
    print("| --- | --- | --- | --- |")
    for short_side, frames in ((360, 2), (480, 2), (480, 5), (720, 2)):
        core, wall = measure(settings(root, short_side, frames), clips)
        print(f"| {short_side} | {frames} | {core:.1f} | {wall:.1f} |", flush=True)


def bench_records(root: Path, clips: int) -> None:
    """Prints two tables that compare a folder with its records."""
    folder, packed = root / "folder", root / "packed"
    folder.mkdir()
    write_folder(folder, **SMALL)
    built = build(folder, "train", packed)
    print(f"images: 640 x 360, {built.size / built.frames / 1024:.0f} KiB on average\n")
    compare(folder, packed, clips)
    print()
    compare_records(packed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=200, help="clips of each row")
    parser.add_argument("--records", action="store_true", help="folder and records")
    arguments = parser.parse_args()
    print(f"device: {cpu_model()}, {os.cpu_count()} cores")
    with tempfile.TemporaryDirectory() as name:
        run = bench_records if arguments.records else bench_folder
        run(Path(name), arguments.clips)


if __name__ == "__main__":
    main()
