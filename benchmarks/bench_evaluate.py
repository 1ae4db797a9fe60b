"""Speed of `evaluate` against the number of processes and devices.

Run: python -m benchmarks.bench_evaluate [--recipe ifr_shapes] [--videos 32]
         [--layouts 1x1 1x8 2x1]

A layout is processes x devices of each; on a CPU the devices are simulated, and all of
them share its cores. Every layout evaluates the same videos twice with the same random
weights, from the first frame to the merged results file: in the first pass every device
compiles what it runs. `equal` says whether the results file of each pass has the bytes
of the first layout. `largest` is the largest share of a process by that of the mean, in
frames. The recipe is as small as `:debug` makes it, with a mask decoder of one layer.
JAX_ENABLE_COMPILATION_CACHE=false in the environment makes every run compile anew.
"""

import argparse
import importlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.peer import print_machine

if TYPE_CHECKING:
    from data_pipeline.datasets.moving_shapes import MovingShapes
    from vis_jax.commands.saved_model import SavedModel

FRAMES = (4, 12)  # of the shortest video and of the longest
# Programs are small here, and compiling them is not what is measured.
XLA_FLAGS = (
    "--xla_backend_optimization_level=1 --xla_llvm_disable_expensive_passes=true"
)
RESULTS = "results.json"


def make_videos(count: int) -> "MovingShapes":
    """Moving shapes of unequal lengths."""
    from data_pipeline.datasets.moving_shapes import MovingShapes

    dataset = MovingShapes("val", num_videos=count, height=64, width=96, length=12)
    lengths = np.random.default_rng(0).integers(FRAMES[0], FRAMES[1] + 1, count)
    dataset.videos = tuple(
        video._replace(length=int(n), file_names=video.file_names[:n])
        for video, n in zip(dataset.videos, lengths, strict=True)
    )
    return dataset


def make_model(recipe: str, dataset: "MovingShapes") -> "SavedModel":
    """A system with random weights, which are not drawn on a device."""
    import jax

    from vis_jax.commands import parts
    from vis_jax.commands.run_settings import read_run
    from vis_jax.commands.saved_model import SavedModel

    content = importlib.import_module(f"configs.{recipe}").get_config("debug").to_dict()
    content["test"] |= {"frame_buckets": (FRAMES[1],)}
    if "mask_decoder" in content["model"]:
        content["model"]["mask_decoder"]["layers"] = 1
    config = read_run(content)
    system = parts.build_system(config)
    rng = np.random.default_rng(0)

    def draw(path: tuple, leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        ones = np.float32(path[-1].key in ("scale", "var"))
        noise = rng.normal(size=leaf.shape)
        inputs = max(np.prod(leaf.shape[:-1]), 4)
        return (ones + noise / np.sqrt(inputs)).astype(np.float32)

    variables = jax.tree_util.tree_map_with_path(draw, parts.shapes_of(system))
    classes = tuple((one.category_id, one.name) for one in dataset.categories)
    return SavedModel(config, classes, system, variables)


def work(recipe: str, videos: int, folder: Path) -> None:
    """One process of a layout; the first one prints the seconds of both passes."""
    import jax

    from vis_jax.commands.processes import meet, own_share, together
    from vis_jax.evaluate.infer import make_streams
    from vis_jax.evaluate.loop import evaluate_share, merge

    with together():
        dataset = make_videos(videos)
        model = make_model(recipe, dataset)
        streams = make_streams(model.system, model.variables, model.config.test)
        share, seconds = own_share(), []
        for number in range(2):
            output = folder / str(number)
            meet(f"begin {number}")
            begin = time.perf_counter()
            evaluate_share(
                dataset, streams, output,
                top=model.config.test.top, run_id="", share=share,
                tell=lambda count: None,
            )  # fmt: skip
            meet(f"predicted {number}")
            if jax.process_index() == 0:
                merge(dataset, output, run_id="", count=share.total)
            seconds.append(time.perf_counter() - begin)
        meet("end")
        if jax.process_index() == 0:
            print(json.dumps(seconds), flush=True)


def run_layout(processes: int, devices: int, args: argparse.Namespace) -> list[float]:
    """Seconds of both passes; the files go to `args.folder`."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    count = f"--xla_force_host_platform_device_count={devices}"
    own = {"XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {XLA_FLAGS} {count}"}
    own["JAX_PLATFORMS"] = "cpu"
    words = [sys.executable, "-m", "benchmarks.bench_evaluate", "--recipe", args.recipe]
    words += ["--videos", str(args.videos), "--folder", str(args.folder)]
    started = []
    for index in range(processes):
        if processes > 1:
            own["VIS_JAX_COORDINATOR"] = f"127.0.0.1:{port}"
            own["VIS_JAX_NUM_PROCESSES"] = str(processes)
            own["VIS_JAX_PROCESS_ID"] = str(index)
        started.append(
            subprocess.Popen(
                words, env=os.environ | own, stdout=subprocess.PIPE, text=True
            )
        )
    outputs = [process.communicate()[0] for process in started]
    if any(process.returncode for process in started):
        raise SystemExit(f"{processes}x{devices}: a process failed")
    return json.loads(outputs[0].splitlines()[-1])


def main() -> None:
    """Prints one table, or works as one of its processes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", default="ifr_shapes")
    parser.add_argument("--videos", type=int, default=32)
    parser.add_argument("--layouts", nargs="+", default=["1x1", "1x8", "2x1"])
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.folder is not None:
        work(args.recipe, args.videos, args.folder)
        return
    from vis_jax.evaluate.shares import balance, divide

    lengths = [video.length for video in make_videos(args.videos).videos]
    print_machine("cpu")
    print(f"{args.recipe}: {args.videos} videos, {sum(lengths)} frames of 64 x 96")
    print("processes  devices of each  first pass s  second pass s  videos/s", end="")
    print("  largest  equal")
    expected = None
    for layout in args.layouts:
        processes, devices = map(int, layout.split("x"))
        with tempfile.TemporaryDirectory() as folder:
            args.folder = Path(folder)
            first, second = run_layout(processes, devices, args)
            found = [(args.folder / str(n) / RESULTS).read_bytes() for n in range(2)]
        expected = expected or found[0]
        print(
            f"{processes:9} {devices:16} {first:13.1f} {second:14.1f}"
            f" {args.videos / second:9.2f}"
            f" {balance(lengths, divide(lengths, processes)):8.3f}"
            f"  {'yes' if set(found) == {expected} else 'NO'}",
            flush=True,
        )


if __name__ == "__main__":
    main()
