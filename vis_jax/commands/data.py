"""Makes data sets: `data make_shapes` writes moving shapes as a YouTube-VIS folder.

examples:
  python -m vis_jax.main data make_shapes --output shapes --num_videos 20
  python -m vis_jax.main data make_shapes --output hard --split val \\
      --difficulty hard --height 360 --width 640 --length 36
"""

from absl import flags

TAKES_WORDS = True
ACTIONS = ("make_shapes",)


def define(values: flags.FlagValues, arguments: list[str]) -> None:
    """Adds the flags of this command."""
    flags.DEFINE_string("output", None, "new folder to write", flag_values=values)
    flags.DEFINE_enum(
        "split", "train", ("train", "val", "test"), "part", flag_values=values
    )
    flags.DEFINE_enum(
        "difficulty",
        "easy",
        ("easy", "medium", "hard"),
        "of the videos",
        flag_values=values,
    )
    numbers = {
        "seed": (0, "another seed gives other videos"),
        "num_videos": (20, "videos"),
        "height": (96, "pixels"),
        "width": (160, "pixels"),
        "length": (24, "frames per video"),
    }
    for name, (default, text) in numbers.items():
        flags.DEFINE_integer(name, default, text, flag_values=values)


def run(values: flags.FlagValues, words: list[str]) -> None:
    """Runs the action named by the first word."""
    if words not in [[action] for action in ACTIONS]:
        got = " ".join(words) or "nothing"
        raise ValueError(f"data: expected one of {', '.join(ACTIONS)}, got {got}")
    if not values.output:
        raise ValueError("--output: expected a new folder, got none")
    from data_pipeline.datasets.make_shapes import make_shapes
    from data_pipeline.datasets.moving_shapes import MovingShapes

    dataset = MovingShapes(
        values.split,
        seed=values.seed,
        num_videos=values.num_videos,
        height=values.height,
        width=values.width,
        length=values.length,
        difficulty=values.difficulty,
    )
    make_shapes(values.output, dataset)
    print(f"data          {values.output}")
