"""Brings a folder in another layout into the one that the reader takes.

Recognised are YouTube-VIS and OVIS in all their arrangements, DAVIS, MOTS (PNGs or
text), COCO with an entry for each frame, labelme and CVAT for video; what was found and
why is printed. The source is only read. Images become hard links to it, or copies on
another disk. The result is OUTPUT/SPLIT, complete or not there; a second run finds that
nothing is left to do. `data check` of the output then reads all of it, as training
would.

examples:
  python -m vis_jax.main data prepare --source Downloads/ytvis2019 --output ytvis2019
  python -m vis_jax.main data prepare --source DAVIS --output davis --split val \\
      --category animal
  python -m vis_jax.main data prepare --source labels --output mine --layout labelme
"""

import sys

from absl import flags

LAYOUTS = ("ytvis", "coco", "davis", "mots", "cvat", "labelme")


def define(values: flags.FlagValues, arguments: list[str]) -> None:
    """Adds the flags of this command."""
    del arguments
    texts = {
        "source": (None, "folder to read"),
        "output": (None, "folder to write, outside of the source; one for all splits"),
        "split": ("train", "looked for in the source, and the name in the output"),
        "category": ("object", "name of the one category of DAVIS"),
    }
    for name, (default, text) in texts.items():
        flags.DEFINE_string(name, default, text, flag_values=values)
    flags.DEFINE_enum(
        "layout",
        None,
        LAYOUTS,
        f"take the source for one of {', '.join(LAYOUTS)}; without it all are tried",
        flag_values=values,
    )
    flags.DEFINE_bool(
        "copy",
        False,
        "copy images even where links are possible, so that changes of the source do"
        " not show",
        flag_values=values,
    )


def run(values: flags.FlagValues) -> None:
    """Prints what was recognised, writes the folder and counts what is in it.

    Raises:
      ValueError: a flag that is wrong, an unknown layout, a defect of the files.
    """
    for name in ("source", "output"):
        if not getattr(values, name):
            raise ValueError(f"--{name}: expected a folder, got none")
    if not values.category:
        raise ValueError("--category: expected a name, got none")
    from data_pipeline.datasets.prepare import prepare
    from data_pipeline.errors import printable

    outcome = prepare(
        values.source,
        values.output,
        values.split,
        layout=values.layout,
        category=values.category,
        copy=values.copy,
        progress=sys.stderr.isatty(),
        tell=lambda found: print(
            printable(f"layout        {found.layout}: {found.why}")
        ),
    )
    content = outcome.prepared.content
    print(
        f"videos        {len(content['videos'])}, {len(outcome.prepared.images)} frames"
    )
    print(f"tracks        {len(content.get('annotations', ()))}")
    print(f"categories    {', '.join(c['name'] for c in content['categories'])}")
    for line in outcome.prepared.left_out:
        print(f"left out      {line}")
    done = "" if outcome.written else " (was there already, nothing to do)"
    print(f"data          {values.output}/{values.split}{done}")
    print("config        --config.data.name=folder")
    print(f"              --config.data.root={values.output}")
    print(f"              --config.data.split={values.split}")
