"""Writes moving shapes, with exact ground truth, as a folder in YouTube-VIS format.

examples:
  python -m vis_jax.main data make_shapes --output made --num_videos 20
  python -m vis_jax.main data make_shapes --output hard --split val \\
      --difficulty hard --height 360 --width 640 --length 36
"""

import sys
import typing

from absl import flags

from data_pipeline.settings import Shapes
from vis_jax.settings import fields_of


def define(values: flags.FlagValues, arguments: list[str]) -> None:
    """Adds the flags of this command."""
    del arguments
    flags.DEFINE_string("output", None, "new folder to write", flag_values=values)
    choices = {
        "split": ("train", ("train", "val", "test"), "each split has its own videos"),
        "difficulty": (
            "easy",
            typing.get_args(fields_of(Shapes)["difficulty"].type),
            "number, similarity and motion of the shapes (docs/data.md)",
        ),
    }
    for name, (default, among, text) in choices.items():
        flags.DEFINE_enum(name, default, among, text, flag_values=values)
    numbers = {
        "seed": (0, "random seed of the videos"),
        "num_videos": (20, "number of videos"),
        "height": (96, "pixels"),
        "width": (160, "pixels"),
        "length": (24, "frames per video"),
    }
    for name, (number, text) in numbers.items():
        flags.DEFINE_integer(name, number, text, flag_values=values)


def run(values: flags.FlagValues) -> None:
    """Writes the folder."""
    if not values.output:
        raise ValueError("--output: expected a new folder, got none")
    from data_pipeline.moving_shapes.dataset import MovingShapes
    from data_pipeline.write.folder import write_dataset

    dataset = MovingShapes(
        values.split,
        seed=values.seed,
        num_videos=values.num_videos,
        height=values.height,
        width=values.width,
        length=values.length,
        difficulty=values.difficulty,
    )
    write_dataset(values.output, dataset, progress=sys.stderr.isatty())
    print(f"data          {values.output}")
