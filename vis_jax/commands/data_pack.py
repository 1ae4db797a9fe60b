"""Checks a results.json by an evaluation server's rules, and packs it for upload.

examples:
  python -m vis_jax.main data pack --results results.json --truth valid.json \\
      --output submission.zip
  python -m vis_jax.main data pack --output ovis.zip \\
      --results runs/ovis/evaluation/valid/results.json \\
      --truth ovis/annotations_valid.json
"""

from absl import flags


def define(values: flags.FlagValues, arguments: list[str]) -> None:
    """Adds the flags of this command."""
    del arguments
    texts = {
        "results": "results.json",
        "truth": "file with the videos and categories; annotations are not needed",
        "output": "zip to write",
    }
    for name, text in texts.items():
        flags.DEFINE_string(name, None, text, flag_values=values)


def run(values: flags.FlagValues) -> None:
    """Writes the archive."""
    from vis_jax.formats.pack import pack
    from vis_jax.formats.tracks import MAX_PREDICTIONS

    for name in ("results", "truth", "output"):
        if not getattr(values, name):
            raise ValueError(f"--{name}: expected a file, got none")
    packed = pack(values.results, values.truth, values.output)
    print(f"archive       {values.output}")
    print(f"predictions   {packed.predictions}")
    if packed.videos_without:
        ids = ", ".join(map(str, packed.videos_without))
        print(f"warning: videos without a prediction: {ids}")
    if packed.beyond_limit:
        limit = MAX_PREDICTIONS[-1]
        print(
            f"warning: {packed.beyond_limit} predictions that servers leave out, as"
            f" {limit} of a video and category score higher"
        )
