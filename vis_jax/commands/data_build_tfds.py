"""Packs a folder in YouTube-VIS or OVIS format into a few large files, for pods.

Writes tensorflow-datasets as ArrayRecord files to --output/<split>; with data.root set
to --output they replace the folder. Image files are copied unchanged, after a check
that each can be decoded.

examples:
  python -m vis_jax.main data build_tfds --source ytvis2019 --split train \\
      --output ytvis2019_tfds
  python -m vis_jax.main data build_tfds --source ovis --split train \\
      --output ovis_tfds --shard_mib 1024
"""

import sys

from absl import flags


def define(values: flags.FlagValues, arguments: list[str]) -> None:
    """Adds the flags of this command."""
    del arguments
    texts = {
        "source": (None, "folder of the data set"),
        "split": ("train", "split to pack, and its name in --output"),
        "output": (None, "folder to write to; may already have other splits"),
    }
    for name, (default, text) in texts.items():
        flags.DEFINE_string(name, default, text, flag_values=values)
    flags.DEFINE_integer(
        "shard_mib", 256, "approximate MiB of images per file", flag_values=values
    )


def run(values: flags.FlagValues) -> None:
    """Writes the data sets.

    Raises:
      ValueError: a flag is wrong, or the folder has a defect.
    """
    for name in ("source", "output"):
        if not getattr(values, name):
            raise ValueError(f"--{name}: expected a folder, got none")
    if values.shard_mib < 1:
        raise ValueError(f"--shard_mib: expected 1 or more, got {values.shard_mib}")
    from data_pipeline.write.tfds_builder import build

    built = build(
        values.source,
        values.split,
        values.output,
        shard_bytes=values.shard_mib * 2**20,
        progress=sys.stderr.isatty(),
    )
    print(f"data          {values.output}, split {values.split}")
    print(f"videos        {built.videos}, {built.frames} frames")
    print(f"files         {built.shards}, {built.size / 2**20:.1f} MiB of frames")
