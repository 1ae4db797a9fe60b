"""Measures the memory of predict and evaluate on a long video.

Run: python -m benchmarks.bench_memory [--frames 500 10000] [--recipes ifr_shapes]

Recipes of `configs/`, shrunk as by `:debug` and with random weights, run clip by clip
on 96 x 160 frames with moving squares. Each row is a separate process. The resident
memory of the process and the bytes of all live device arrays are sampled at 20 points;
the slope of a line through the points after frame 500 should be at most 1 MB per 1,000
frames. The peak includes writing the results and, for evaluate, scoring them.
"""

import argparse
import gc
import importlib
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

HEIGHT, WIDTH, POINTS, WARM = 96, 160, 20, 500
RECIPES = ("ifr_shapes", "mask_track_rcnn_shapes", "rgnn_vis_shapes")
TASKS = ("predict", "evaluate")
# Overrides of `test` by system, for the maximum numbers of detections and tracks, as
# scores of random weights are low.
SETTINGS = {
    "ifr": {"clip_length": 5},
    "mask_track_rcnn": {"clip_length": 4, "score": 0.0},
    "rgnn_vis": {"clip_length": 4, "score": 0.0, "match": 0.02, "start": 0.02},
    "yolact": {"clip_length": 4, "score": 0.0},
}


def make_frame(t: int) -> np.ndarray:
    """Makes frame `t`, uint8 [HEIGHT, WIDTH, 3]: three squares on periodic paths."""
    frame = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
    for i in range(3):
        x, y = (
            (7 * t * (i + 1) + 40 * i) % (WIDTH - 24),
            (3 * t + 30 * i) % (HEIGHT - 24),
        )
        frame[y : y + 24, x : x + 24] = np.roll((220, 60, 20), i)
    return frame


def resident() -> float:
    """Returns the resident memory of this process in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


class Footage:
    """Data set of one video without annotations; samples memory while it is read."""

    def __init__(self, frames: int) -> None:
        from data_pipeline.datasets.dataset import Category, Video

        # Frame, resident MB, MB of device arrays.
        self.points: list[tuple[int, float, float]] = []
        names = tuple(f"{t:05d}.jpg" for t in range(frames))
        self.videos = (Video(1, "long", HEIGHT, WIDTH, frames, names),)
        self.categories = tuple(Category(i, f"class {i}") for i in range(1, 9))
        self.objects = 0  # number of masks so far
        self._every = max(frames // POINTS, 1)

    def read_frames(self, index: int, frame_ids: np.ndarray) -> np.ndarray:
        """Makes frames."""
        return np.stack([self._frame(int(t)) for t in frame_ids])

    def frames(self) -> Iterator[np.ndarray]:
        """Yields all frames."""
        yield from map(self._frame, range(self.videos[0].length))

    def _frame(self, t: int) -> np.ndarray:
        if (t + 1) % self._every == 0:
            import jax

            gc.collect()
            arrays = sum(array.nbytes for array in jax.live_arrays()) / 1e6
            self.points.append((t + 1, resident(), arrays))
        return make_frame(t)

    def counted(self, stream: Any) -> Any:
        """Wraps a stream to count its masks."""

        def run(frames, **options):
            for found in stream(frames, **options):
                self.objects += len(found.rows)
                yield found

        return run

    def truth(self, index: int) -> Any:
        """Returns no tracks."""
        from data_pipeline.datasets.dataset import VideoTruth

        length = self.videos[0].length
        return VideoTruth(
            labels=np.zeros(0, np.int32),
            track_ids=np.zeros(0, np.int32),
            crowd=np.zeros(0, bool),
            boxes=np.zeros((0, length, 4), np.float32),
            present=np.zeros((0, length), bool),
            occlusion=np.zeros((0, length), np.float32),
            segmentations=(),
        )


def measure(recipe: str, task: str, frames: int) -> None:
    """Runs one row in this process and prints it."""
    import jax

    from vis_jax.commands import parts
    from vis_jax.commands.run_settings import read_run, with_classes
    from vis_jax.evaluate.infer import make_stream
    from vis_jax.training.dry_run import batch_shapes

    content = importlib.import_module(f"configs.{recipe}").get_config("debug").to_dict()
    test = content["test"] | SETTINGS.get(content["system"], {})
    content["test"] = test | {"mode": "clip", "short_side": HEIGHT, "chunk": 4}
    footage = Footage(frames)
    run = with_classes(read_run(content), len(footage.categories))
    system = parts.build_system(run)
    shapes = batch_shapes(B=1, T=2, H=HEIGHT, W=WIDTH, M=1)
    batch = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
    variables = jax.jit(system.init)(jax.random.key(0), batch)
    if run.system == "ifr":  # its initial bias favours "no object"
        heads = variables["params"]["decoder"]["heads"]
        heads["class_embed"]["bias"] = np.zeros(len(footage.categories), np.float32)
    stream = footage.counted(make_stream(system, variables, run.test))
    with tempfile.TemporaryDirectory() as folder:
        if task == "predict":
            predict_all(footage, stream, run.test.top, Path(folder) / "out")
        else:
            from vis_jax.evaluate.loop import evaluate

            data: Any = footage
            top = run.test.top
            evaluate(data, stream, folder, top=top, run_id="", progress=False)
    report(recipe, task, footage)


def predict_all(footage: Footage, stream: Any, top: int, output: Path) -> None:
    """Runs `predict` with all outputs."""
    from vis_jax.predict.loop import Finder, predict
    from vis_jax.predict.sources import from_arrays
    from vis_jax.predict.writer import RequestedOutputs

    predict(
        from_arrays(footage.frames()),
        output,
        Finder(stream, [(c.category_id, c.name) for c in footage.categories], top),
        wanted=RequestedOutputs(
            score_threshold=0.0, formats=("json", "jsonl", "ids", "mp4")
        ),
    )


def report(recipe: str, task: str, footage: Footage) -> None:
    """Prints the samples and the slopes."""
    points = np.array(footage.points)
    late = points[points[:, 0] >= WARM]
    slopes = ["-", "-"]
    if len(late) > 1:
        slopes = [
            f"{np.polyfit(late[:, 0], late[:, i], 1)[0] * 1e3:.3f}" for i in (1, 2)
        ]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    count = footage.videos[0].length
    each = footage.objects / count
    print(f"{recipe:<22} {task:<9} {count:6} {each:5.1f}", end="")
    print(f" {slopes[0]:>8} {slopes[1]:>8} {peak:9.0f}")
    for i, name in ((1, "resident"), (2, "arrays")):
        print(f"  {name:<9}" + " ".join(f"{value:.1f}" for value in points[:, i]))
    sys.stdout.flush()


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, nargs="+", default=[500, 10_000])
    parser.add_argument("--recipes", nargs="+", default=RECIPES, help="of configs/")
    parser.add_argument("--tasks", nargs="+", default=TASKS, choices=TASKS)
    parser.add_argument("--here", action="store_true", help="one row, in this process")
    args = parser.parse_args()
    if args.here:
        measure(args.recipes[0], args.tasks[0], args.frames[0])
        return
    print("Masks of a frame; MB per 1,000 frames; peak and points in MB")
    print("recipe                 task      frames masks resident   arrays      peak")
    sys.stdout.flush()
    for recipe in args.recipes:
        for task in args.tasks:
            for frames in args.frames:
                words = ["--recipes", recipe, "--tasks", task, "--frames", str(frames)]
                command = [sys.executable, "-m", "benchmarks.bench_memory", "--here"]
                subprocess.run([*command, *words], check=True)


if __name__ == "__main__":
    main()
