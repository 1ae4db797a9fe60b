"""Measures the speed of `evaluate` for several numbers of processes and devices.

Run: python -m benchmarks.bench_evaluate [--recipe ifr_shapes] [--videos 64]
         [--layouts 1x1 1x8 2x1]

A layout is processes x devices per process; on a CPU the devices are simulated, and all
of them share its cores. Each layout evaluates the same videos twice with the same
random weights, from the first frame to the merged results file and the scores; the
first pass includes compilation on each device. `equal` tells whether the results file
of each pass is byte-equal to that of a single process on the first of as many devices:
on a CPU, XLA splits sums by its number of threads, which grows with the number of
simulated devices, so scores may round differently with another number of devices.
`largest` is the largest share of a process divided by the mean share, in frames.
Without a recipe the system is a stack of convolutions, which compiles in seconds;
recipes are shrunk as by `:debug`.
With JAX_ENABLE_COMPILATION_CACHE=false in the environment, every run compiles anew.
"""

import argparse
import importlib
import itertools
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from benchmarks.peer import print_machine

if TYPE_CHECKING:
    from data_pipeline.moving_shapes.dataset import MovingShapes
    from vis_jax.commands.saved_model import SavedModel
    from vis_jax.systems.system import System

FRAMES = (4, 12)  # lengths of the shortest and the longest video
LAYERS, CHANNELS, OBJECTS = 4, 16, 8  # sizes of the system without a recipe
RESULTS = "results.json"


def make_videos(count: int) -> "MovingShapes":
    """Makes moving shapes of different lengths."""
    from data_pipeline.moving_shapes.dataset import MovingShapes

    dataset = MovingShapes("val", num_videos=count, height=64, width=96, length=12)
    lengths = np.random.default_rng(0).integers(FRAMES[0], FRAMES[1] + 1, count)
    dataset.videos = tuple(
        video._replace(length=int(n), file_names=video.file_names[:n])
        for video, n in zip(dataset.videos, lengths, strict=True)
    )
    return dataset


def make_model(recipe: str, dataset: "MovingShapes") -> "SavedModel":
    """Makes a system with random weights, drawn without a device."""
    from vis_jax.commands import parts
    from vis_jax.commands.run_settings import read_run
    from vis_jax.commands.saved_model import SavedModel

    name = recipe or "ifr_shapes"
    content = importlib.import_module(f"configs.{name}").get_config("debug").to_dict()
    content["test"] |= {"frame_buckets": (FRAMES[1],)}
    config = read_run(content)
    system = parts.build_system(config) if recipe else make_convolutions()
    variables = draw_variables(parts.shapes_of(system))
    classes = tuple((one.category_id, one.name) for one in dataset.categories)
    return SavedModel(config, classes, system, variables)


def draw_variables(shapes: dict) -> dict:
    """Draws random variables of these shapes without a device."""
    import jax

    rng = np.random.default_rng(0)

    def draw(path: tuple, leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        ones = np.float32(path[-1].key in ("scale", "var"))
        noise = rng.normal(size=leaf.shape)
        drawn = ones + noise / np.sqrt(max(np.prod(leaf.shape[:-1]), 4))
        # Variances are not negative.
        return np.asarray(np.abs(drawn) if path[-1].key == "var" else drawn, np.float32)

    return jax.tree_util.tree_map_with_path(draw, shapes)


def make_convolutions() -> "System":
    """Makes a system that convolves frames; each channel is the mask of an object."""
    import jax
    import jax.numpy as jnp

    from vis_jax.structures import Clip, LossAux, Predictions
    from vis_jax.systems.system import System, Window

    sizes = [3] + [CHANNELS] * LAYERS

    def init(rng: jax.Array, batch: object) -> dict:
        shapes = [(3, 3, one, other) for one, other in itertools.pairwise(sizes)]
        return {"params": {f"conv{i}": jnp.zeros(x) for i, x in enumerate(shapes)}}

    def step(variables: dict, state: tuple, clip: Clip) -> tuple[tuple, Predictions]:
        x = jnp.asarray(clip.images).astype(jnp.float32) / 255.0 - 0.5
        for kernel in variables["params"].values():
            x = jnp.tanh(
                jax.lax.conv_general_dilated(
                    x,
                    kernel,
                    (1, 1),
                    "SAME",
                    dimension_numbers=("NHWC", "HWIO", "NHWC"),
                )
            )
        masks = x[..., :OBJECTS]
        frames = clip.images.shape[0]
        numbers = jnp.arange(OBJECTS, dtype=jnp.int32)
        found = Predictions(
            class_probs=jax.nn.softmax(masks.mean((0, 1, 2)))[:, None],
            track_ids=numbers + 1,
            valid=jnp.ones(OBJECTS, bool),
            slots=jnp.tile(numbers[None], (frames, 1)),
            mask_logits=jnp.moveaxis(masks, -1, 1),
        )
        return state, found

    def loss(
        variables: dict, batch: object, rng: jax.Array
    ) -> tuple[jax.Array, LossAux]:
        raise TypeError("this system is not trained")

    window = Window(None, None, buckets=(FRAMES[1],))
    return System(init, loss, lambda clip: (), step, window)


def work(recipe: str, videos: int, folder: Path, use: int) -> None:
    """Runs one process of a layout; the first one prints the seconds of both passes."""
    import jax

    from vis_jax.commands.processes import meet, own_share, together
    from vis_jax.evaluate.infer import make_streams
    from vis_jax.evaluate.loop import evaluate_share
    from vis_jax.evaluate.merge import merge

    with together():
        dataset = make_videos(videos)
        model = make_model(recipe, dataset)
        streams = make_streams(model.system, model.variables, model.config.test)
        streams = streams[: use or None]
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


class Run(NamedTuple):
    """Run of a layout."""

    seconds: list[float]  # seconds of each pass
    files: list[bytes]  # the results of both


def run_layout(
    processes: int, devices: int, args: argparse.Namespace, *, use: int = 0
) -> Run:
    """Runs a layout with `use` devices of each process, 0 for all."""
    with tempfile.TemporaryDirectory() as folder:
        seconds = run_processes(processes, devices, args, Path(folder), use)
        files = [(Path(folder) / str(n) / RESULTS).read_bytes() for n in range(2)]
    return Run(seconds, files)


def run_processes(
    processes: int, devices: int, args: argparse.Namespace, folder: Path, use: int
) -> list[float]:
    """Runs the processes of a layout; returns the seconds of both passes."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    count = f"--xla_force_host_platform_device_count={devices}"
    own = {"XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {count}"}
    own["JAX_PLATFORMS"] = "cpu"
    words = [sys.executable, "-m", "benchmarks.bench_evaluate"]
    words += ["--recipe", args.recipe, "--videos", str(args.videos)]
    words += ["--folder", str(folder), "--use", str(use)]
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
    """Prints the table, or runs as one of its processes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", default="")
    parser.add_argument("--videos", type=int, default=64)
    parser.add_argument("--layouts", nargs="+", default=["1x1", "1x8", "2x1"])
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--use", type=int, default=0, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.folder is not None:
        work(args.recipe, args.videos, args.folder, args.use)
        return
    from vis_jax.evaluate.shares import balance, divide

    lengths = [video.length for video in make_videos(args.videos).videos]
    print_machine("cpu")
    print(
        f"{args.recipe or 'convolutions'}: {args.videos} videos, {sum(lengths)} frames"
        " of 64 x 96"
    )
    print("processes  devices of each  first pass s  second pass s  videos/s", end="")
    print("  largest  equal")
    alone: dict[int, bytes] = {}  # results of one device, by number of devices
    for layout in args.layouts:
        processes, devices = map(int, layout.split("x"))
        run = run_layout(processes, devices, args)
        if devices not in alone:
            same = (processes, devices) == (1, 1)
            reference = run if same else run_layout(1, devices, args, use=1)
            alone[devices] = reference.files[0]
        first, second = run.seconds
        print(
            f"{processes:9} {devices:16} {first:13.1f} {second:14.1f}"
            f" {args.videos / second:9.2f}"
            f" {balance(lengths, divide(lengths, processes)):8.3f}"
            f"  {'yes' if set(run.files) == {alone[devices]} else 'NO'}",
            flush=True,
        )


if __name__ == "__main__":
    main()
