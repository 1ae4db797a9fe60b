"""Measures how much exports deviate from their models, for every system.

Run: python -m benchmarks.bench_export [--formats stablehlo onnx]
         [--recipes ifr_shapes ..] [--clip_length 2] [--size 64x96] [--frames 5]

Recipes, which may have options as in `lvmt:dataset=moving_shapes`, are shrunk as by
`:debug` and have random weights, which detect something in every frame. Export and
model run on the same video of moving shapes, clip by clip, as at the end of `export`. A
row is one export: its size, with the weights in ONNX and without them in StableHLO,
processor seconds to write it, number of tracks, the largest difference of a class
probability, and the fraction of equal mask pixels; or the reason it cannot be written.
"""

import argparse
import importlib
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import jax
import numpy as np
from absl import flags

from benchmarks.bench_evaluate import draw_variables
from benchmarks.peer import print_machine
from data_pipeline.moving_shapes.dataset import MovingShapes
from vis_jax.commands import export, parts
from vis_jax.commands.run_settings import read_run
from vis_jax.commands.saved_model import SavedModel
from vis_jax.export.agreement import compare

if TYPE_CHECKING:
    from vis_jax.results.frame import FrameResult

# One of each system.
RECIPES = (
    *("ifr_shapes", "mask_track_rcnn_shapes", "yolact_shapes", "rgnn_vis_shapes"),
    *("cascade_shapes", "condinst_shapes", "iai_condinst_shapes"),
    *("iai_mask_rcnn_shapes", "osmn_shapes", "mask_prop_shapes", "videomt_shapes"),
)
# A random ID head rarely classifies an object as new, unless there are few identities.
FEW = {"test": {"id_score": 0.0}}
CHANGES: dict[str, dict] = {
    "iai_condinst_shapes": FEW | {"model": {"ids": {"count": 3}}},
    "iai_mask_rcnn_shapes": FEW | {"model": {"ids": 3}},
    "rgnn_vis_shapes": {"test": {"score": 0.0, "start": 0.001}},
    "eomt": {"test": {"quality": False}},
}
SUFFIXES = {"stablehlo": "*.jax_export", "onnx": "*.onnx"}


def make_model(recipe: str, dataset: MovingShapes, clip_length: int) -> SavedModel:
    """Makes a system with random weights."""
    name, _, options = recipe.partition(":")
    module = importlib.import_module(f"configs.{name}")
    content = module.get_config(",".join(filter(None, (options, "debug")))).to_dict()
    clips = {"test": {"mode": "clip", "clip_length": clip_length}}
    config = read_run(merged(merged(content, clips), CHANGES.get(name, {})))
    system = parts.build_system(config)
    variables = draw_variables(parts.shapes_of(system))
    classes = tuple((one.category_id, one.name) for one in dataset.categories)
    return SavedModel(config, classes, system, variables)


def merged(content: dict, changes: dict) -> dict:
    """Merges changes into nested fields."""
    found = dict(content)
    for name, value in changes.items():
        inner = isinstance(value, dict) and name in content
        found[name] = merged(content[name], value) if inner else value
    return found


def row(
    model: SavedModel, kind: str, size: str, frames: list[np.ndarray],
    expected: "list[FrameResult]",
) -> tuple[str, "list[FrameResult]"]:  # fmt: skip
    """Exports a model in one format and compares the results.

    Args:
      model: to export.
      kind: the format.
      size: size of its canvas.
      frames: frames of the video.
      expected: results of the model; empty = not computed yet.

    Returns:
      The row of the table, and the results of the model.
    """
    values = flags.FlagValues()
    export.define(values, [])
    values(["export", f"--format={kind}", f"--size={size}"])
    module = importlib.import_module(export.FORMATS[kind])
    with tempfile.TemporaryDirectory() as folder:
        begin = time.process_time()
        try:
            written = module.write(model, Path(folder), values)
            seconds = time.process_time() - begin
            own, exported = export.streams_of(model, written)
        except ValueError as error:
            return f"{kind:<10}{error}", expected
        files = Path(folder).glob(SUFFIXES[kind])
        megabytes = sum(path.stat().st_size for path in files) / 1e6
        expected = expected or list(own(frames))
        found = compare(exported(frames), expected)
    return (
        f"{kind:<10}{megabytes:6.2f} MB {seconds:5.1f} s {found.tracks:4d} tracks"
        f" {found.scores:8.1e} {found.pixels:9.6f}",
        expected,
    )


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipes", nargs="+", default=RECIPES)
    parser.add_argument(
        "--formats", nargs="+", choices=[*SUFFIXES], default=["stablehlo"]
    )
    parser.add_argument("--clip_length", type=int, default=2, help="frames")
    parser.add_argument("--size", default="64x96", help="height x width in pixels")
    parser.add_argument("--frames", type=int, default=5, help="of the video")
    chosen = parser.parse_args()
    print_machine(jax.devices()[0].device_kind)
    height, width = map(int, chosen.size.split("x"))
    dataset = MovingShapes(
        "test", num_videos=1, length=chosen.frames, height=height, width=width
    )
    frames = list(dataset.read_frames(0, np.arange(chosen.frames)))
    for recipe in chosen.recipes:
        model = make_model(recipe, dataset, chosen.clip_length)
        expected: list[FrameResult] = []
        for kind in chosen.formats:
            text, expected = row(model, kind, chosen.size, frames, expected)
            print(f"{model.config.system:<16} {text}", flush=True)


if __name__ == "__main__":
    main()
