"""Compares time and memory of scoring with the loops of the official tool.

Run: python -m benchmarks.bench_score --videos 30 --predictions 10 100 --ragged

Both read the same files in a new process and must compute the same twelve metrics.
"Official" is `official_score.py`: the loops of the official tool on one thread. It then
measures the wall time of `vis_jax.score` with one and several workers, for the twelve
metrics only and with identity metrics, the default.

Data are synthetic: drifting blobs at 720p (ytvis) or 1080p (ovis). A third of the
predictions follow a track, half have the category of a track in their video, and the
tracks of a video share a category half of the time.
"""

import argparse
import json
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from pycocotools import mask as coco_mask

from benchmarks import official_score
from vis_jax.formats.results_json import load_results, load_truth, write_results
from vis_jax.metrics.video_ap import evaluate
from vis_jax.scoring import METRICS, Options, score

SIZES = {"ytvis": (720, 1280), "ovis": (1080, 1920)}


def blob(rng: np.random.Generator, size: tuple[int, int], ragged: bool) -> np.ndarray:
    """Draws the corners of an outline, x y in pixels."""
    n = 400 if ragged else 60
    angle = np.linspace(0, 2 * np.pi, n, endpoint=False)
    noise = rng.normal(0, 0.15 if ragged else 0.0, n)
    wobble = sum(rng.normal(0, 0.1) * np.sin(k * angle) for k in range(2, 6))
    radius = size[0] * rng.uniform(0.05, 0.35) * (1 + wobble + noise)
    middle = np.array(size[::-1]) * rng.uniform(0.2, 0.8, 2)
    return middle + radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1)


def masks(
    rng: np.random.Generator, outline: np.ndarray, length: int, size: tuple[int, int]
) -> list[dict | None]:
    """Returns masks of an outline that drifts, absent in about one of ten frames."""
    drift, frames = rng.normal(0, 4, 2), []
    for t in range(length):
        here = outline + drift * t + rng.normal(0, 2, outline.shape)
        code = coco_mask.frPyObjects([here.ravel().tolist()], *size)[0]
        text = {"size": list(size), "counts": code["counts"].decode()}
        frames.append(text if rng.random() > 0.1 else None)
    return frames


def write_files(
    folder: Path, style: str, num_videos: int, num_predictions: int, ragged: bool
) -> None:
    """Writes truth.json and results.json."""
    rng = np.random.default_rng(0)
    size = SIZES[style]
    videos: list[dict] = []
    annotations: list[dict] = []
    entries: list[dict] = []
    for video in range(1, num_videos + 1):
        length = int(rng.integers(10, 37) if style == "ytvis" else rng.integers(60, 80))
        videos.append({"id": video, "height": size[0], "width": size[1]})
        videos[-1]["length"] = length
        outlines: list = []
        present: list = []
        for _ in range(rng.integers(1, 4) if style == "ytvis" else rng.integers(4, 8)):
            outlines.append(blob(rng, size, ragged))
            category = int(rng.integers(1, 41))
            if present and rng.random() < 0.5:
                category = present[0]
            frames = masks(rng, outlines[-1], length, size)
            areas = [f and int(coco_mask.area(f)) for f in frames]
            annotations.append(
                {"id": len(annotations) + 1, "video_id": video, "iscrowd": 0}
                | {"category_id": category, "segmentations": frames, "areas": areas}
            )
            present.append(category)
        for _ in range(num_predictions):
            outline = blob(rng, size, ragged)
            if rng.random() < 1 / 3:
                outline = outlines[rng.integers(len(outlines))]
            known = rng.random() < 0.5
            category = int(rng.choice(present) if known else rng.integers(1, 41))
            entries.append(
                {"video_id": video, "category_id": category, "score": rng.random()}
                | {"segmentations": masks(rng, outline, length, size)}
            )
    categories = [{"id": k, "name": str(k)} for k in range(1, 41)]
    truth = {"videos": videos, "categories": categories, "annotations": annotations}
    (folder / "truth.json").write_text(json.dumps(truth))
    write_results(folder / "results.json", entries)


def run(who: str, folder: Path) -> None:
    """Prints CPU seconds to load and to score, peak MiB, metrics and wall time."""
    start, wall = time.process_time(), time.perf_counter()
    if who == "official":
        loaded = official_score.load(folder)
        middle = time.process_time()
        stats = official_score.evaluate(*loaded)
    elif who == "ours":
        truth = load_truth(folder / "truth.json")
        results = load_results(folder / "results.json", truth)
        middle = time.process_time()
        found = evaluate(truth, results).stats
        stats = {k: -1.0 if value is None else value for k, value in found.items()}
    else:
        workers, identities = int(who.split(":")[0]), who.endswith(":identities")
        options = Options(identities=identities, class_agnostic=False)
        paths = folder / "truth.json", folder / "results.json"
        middle = start
        found = score(*paths, options=options, workers=workers)
        values = {k: found[k] for k in METRICS[:12]}
        stats = {k: -1.0 if x is None else x for k, x in values.items()}
    end = time.process_time()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    wall = time.perf_counter() - wall
    print(json.dumps([middle - start, end - middle, peak, stats, wall]))


def measure(who: str, folder: Path) -> list:
    """Calls `run` in a new process."""
    module = ["-m", "benchmarks.bench_score"]
    command = [sys.executable, *module, "--run", who, str(folder)]
    return json.loads(subprocess.check_output(command, text=True))


def check(theirs: dict, ours: dict) -> None:
    """Exits unless both have the same metrics."""
    if not all(abs(ours[k] - x) <= 1e-12 for k, x in theirs.items()):
        sys.exit(f"the tools disagree: {theirs} and {ours}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--style", choices=SIZES, default="ytvis")
    parser.add_argument("--videos", type=int, default=302)
    parser.add_argument("--predictions", type=int, nargs="+", default=[10, 100])
    parser.add_argument("--ragged", action="store_true", help="frayed outlines")
    parser.add_argument("--workers", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--run", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.run:
        run(args.run[0], Path(args.run[1]))
        return
    kind = "ragged" if args.ragged else "smooth"
    print(f"{args.style}, {args.videos} videos, {kind} masks, {platform.machine()}")
    print("predictions  tool      load s  score s  peak MiB  ratio load, score, both")
    for number in args.predictions:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            write_files(folder, args.style, args.videos, number, args.ragged)
            theirs, ours = measure("official", folder), measure("ours", folder)
            check(theirs[3], ours[3])
            whole = {}
            for workers in args.workers:
                for kind in ("twelve", "identities"):
                    found = measure(f"{workers}:{kind}", folder)
                    check(theirs[3], found[3])
                    whole[workers, kind] = found[4]
        ratios = [theirs[0] / ours[0], theirs[1] / ours[1]]
        ratios.append(sum(theirs[:2]) / sum(ours[:2]))
        for tool, row in (("official", theirs), ("ours", ours)):
            line = (
                f"{number:11d}  {tool:8}  {row[0]:6.2f}  {row[1]:7.2f}  {row[2]:8.0f}"
            )
            print(line, *(f"{r:6.1f}" for r in ratios if tool == "ours"))
        print(f"{'':11}  official  {theirs[4]:6.2f} s of wall time")
        for (workers, kind), wall in whole.items():
            ratio = theirs[4] / wall
            print(f"{'':11}  {workers} workers, {kind:10}  {wall:6.2f} s  {ratio:5.1f}")


if __name__ == "__main__":
    main()
