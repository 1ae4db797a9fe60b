"""Lists the recipes that come with the library, one per line.

A name stands for its file: --config ifr_r50 means --config configs/ifr_r50.py in a
clone of the repository, and also works without a clone.

examples:
  python -m vis_jax.main configs list
  python -m vis_jax.main configs list --filter shapes
"""

from absl import flags

from vis_jax.commands.config_names import recipe_files, summary_of


def define(values: flags.FlagValues, arguments: list[str]) -> None:
    """Adds the flags of this command."""
    del arguments
    flags.DEFINE_string(
        "filter", "", "only recipes with this in their name", flag_values=values
    )


def run(values: flags.FlagValues) -> None:
    """Prints the list."""
    files = {n: path for n, path in recipe_files().items() if values.filter in n}
    if not files:
        raise ValueError(
            f"--filter: expected a part of the name of a recipe, got {values.filter!r}"
        )
    width = max(map(len, files))
    for name, path in files.items():
        print(f"{name:<{width}}  {summary_of(path)}")
