"""Holds out some videos for validation, with the same share of every category.

The file lists the video ids under `train` and `held_out`. The printed flag sets
`data.held_out`; the split "held_out" then has these videos, and "train" the others.

examples:
  python -m vis_jax.main data split --truth ytvis2019/train.json --output split.json \\
      --num_held_out 200
  python -m vis_jax.main data split --truth ovis/annotations_train.json \\
      --output split1.json --num_held_out 60 --seed 1
"""

from absl import flags


def define(values: flags.FlagValues, arguments: list[str]) -> None:
    """Adds the flags of this command."""
    del arguments
    flags.DEFINE_string(
        "truth", None, "annotation file with tracks", flag_values=values
    )
    flags.DEFINE_string("output", None, "JSON file to write", flag_values=values)
    flags.DEFINE_integer(
        "num_held_out", None, "number of videos to hold out", flag_values=values
    )
    flags.DEFINE_integer("seed", 0, "random seed of the split", flag_values=values)


def run(values: flags.FlagValues) -> None:
    """Writes the split."""
    from vis_jax.formats.split import write_split

    for name in ("truth", "output"):
        if not getattr(values, name):
            raise ValueError(f"--{name}: expected a JSON file, got none")
    if values.num_held_out is None:
        raise ValueError("--num_held_out: expected a number of videos, got none")
    split = write_split(
        values.truth,
        values.output,
        num_held_out=values.num_held_out,
        seed=values.seed,
    )
    ids = ",".join(map(str, split.held_out))
    print(f"split         {values.output}")
    print(f"train         {len(split.train)} videos")
    print(f"held out      {len(split.held_out)} videos")
    print(f"--config.data.held_out='({ids},)'")
