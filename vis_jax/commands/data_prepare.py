"""Converts annotations of other tools and data sets to YouTube-VIS format.

It detects the layout and prints the reason: YouTube-VIS and OVIS in all their
variants, DAVIS, MOTS (PNGs or text), COCO with an entry per frame (as exported by CVAT
and Roboflow), labelme, CVAT for video, YOLO with polygons, Label Studio, SA-V and
results of SAM 3. The source is not changed. Images become hard links to it, or copies
on another disk. The result is OUTPUT/SPLIT, which appears when it is complete; a
second run has nothing left to do. `data check` of the output then reads all of it, as
training would. At the end it prints the command that trains on the result.

With --link, labels without identities get them by their overlap from frame to frame.
Check them on the contact sheet: an object keeps its number and colour.

examples:
  python -m vis_jax.main data prepare --source Downloads/ytvis2019 --output ytvis2019
  python -m vis_jax.main data prepare --source DAVIS --output davis --split val \\
      --category animal
  python -m vis_jax.main data prepare --source labels --output mine --layout labelme
  python -m vis_jax.main data prepare --source roboflow --output mine --link
"""

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

if TYPE_CHECKING:
    from vis_jax.predict.link_labels import LabelLinker

SHEET_VIDEOS = 8  # rows of the contact sheet
RECIPE = "configs/mask_track_rcnn_folder.py"  # small enough to train on a CPU
VALIDATION = ("valid", "val", "validation", "test")  # splits to evaluate on


def define(values: flags.FlagValues, arguments: list[str]) -> None:
    """Adds the flags of this command."""
    from data_pipeline.convert import LAYOUT_NAMES

    del arguments
    texts = {
        "source": (None, "folder to read"),
        "output": (None, "folder to write, outside the source, shared by all splits"),
        "split": ("train", "split to look for in the source and to write"),
        "category": ("object", "name of the only category of DAVIS, SA-V and SAM 3"),
        "contact_sheet": (
            None,
            "PNG to write: frames with numbered masks; default: none, or with --link"
            " SPLIT_identities.png in the output",
        ),
    }
    for name, (default, text) in texts.items():
        flags.DEFINE_string(name, default, text, flag_values=values)
    flags.DEFINE_enum(
        "layout",
        None,
        LAYOUT_NAMES,
        f"layout of the source, one of {', '.join(LAYOUT_NAMES)}; default: detected",
        flag_values=values,
    )
    flags.DEFINE_bool(
        "copy",
        False,
        "copy images even where links are possible, so that later changes to the source"
        " have no effect",
        flag_values=values,
    )
    flags.DEFINE_bool(
        "link",
        False,
        "assign identities to labels without them, by overlap from frame to frame",
        flag_values=values,
    )
    flags.DEFINE_float(
        "link_iou",
        0.1,
        "minimum overlap to link: the mean of mask IoU and box IoU",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "link_gap",
        2,
        "frames for which an object may disappear and keep its identity",
        flag_values=values,
    )


def run(values: flags.FlagValues) -> None:
    """Prints the detected layout, writes the folder and counts its content.

    Raises:
      ValueError: a flag is wrong, the layout is unknown, or the files have a defect.
    """
    for name in ("source", "output"):
        if not getattr(values, name):
            raise ValueError(f"--{name}: expected a folder, got none")
    if not values.category:
        raise ValueError("--category: expected a name, got none")
    sheet = _sheet(values)
    from data_pipeline.convert.prepare import prepare
    from data_pipeline.errors import printable

    outcome = prepare(
        values.source,
        values.output,
        values.split,
        layout=values.layout,
        category=values.category,
        copy=values.copy,
        link=_linker(values),
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
    if outcome.prepared.linked:
        print(f"linked        {outcome.prepared.linked} labels by overlap")
        _tell_short(content["annotations"])
    print(f"categories    {', '.join(c['name'] for c in content['categories'])}")
    for line in outcome.prepared.left_out:
        print(f"left out      {line}")
    done = "" if outcome.written else " (was there already, nothing to do)"
    print(f"data          {values.output}/{values.split}{done}")
    if sheet is not None:
        _write_sheet(values, sheet)
    print(f"train         {train_command(Path(values.output), values.split)}")


def _tell_short(tracks: list[dict]) -> None:
    """Says how many tracks linking left with a single frame, if there are any."""
    frames = [sum(mask is not None for mask in one["segmentations"]) for one in tracks]
    if short := frames.count(1):
        print(
            f"short         {short} of {len(tracks)} tracks have a single frame: an"
            " object is not linked if it moves\n              too far between labelled"
            " frames; label more of them, or lower --link_iou"
        )


def _linker(values: flags.FlagValues) -> "LabelLinker | None":
    """Returns the label linker, if requested.

    Raises:
      ValueError: a linking flag is wrong, or given without --link.
    """
    if values.link:
        from vis_jax.predict.link_labels import LabelLinker

        return LabelLinker(values.link_iou, values.link_gap)
    for name in ("link_iou", "link_gap"):
        if values[name].present:
            raise ValueError(f"--{name}: expected --link beside it, got none")
    return None


def _sheet(values: flags.FlagValues) -> Path | None:
    """Returns the path of the contact sheet, if requested."""
    if values.contact_sheet:
        from vis_jax.commands.truth_sheet import check_sheet

        return check_sheet(values.contact_sheet)
    name = f"{values.split}_identities.png"
    return Path(values.output) / name if values.link else None


def _write_sheet(values: flags.FlagValues, sheet: Path) -> None:
    from data_pipeline.checks.folder import Checked
    from data_pipeline.datasets.ytvis_json import read_annotations
    from data_pipeline.datasets.ytvis_layout import find_layout
    from vis_jax.commands.truth_sheet import write_sheet

    layout = find_layout(values.output, values.split)
    content = read_annotations(layout.annotations)
    shown = write_sheet(sheet, Checked(layout, content), SHEET_VIDEOS)
    print(f"sheet         {sheet}, {shown} of {len(content.videos)} videos")


def train_command(output: Path, split: str) -> str:
    """Formats, on several lines, a command that trains on the prepared data.

    It evaluates on a validation split if there is one, else on videos that the recipe
    holds out or, if none can be, on the training videos.

    Args:
      output: folder of all splits.
      split: the last one written.
    """
    from data_pipeline.datasets.held_out import draw_held_out
    from data_pipeline.datasets.ytvis_json import read_annotations

    splits = [file.parent.name for file in sorted(output.glob("*/instances.json"))]
    trained = "train" if "train" in splits else split
    tested = next((s for s in VALIDATION if s in splits and s != trained), None)
    words = [f"--config.data.split={trained}"] if trained != "train" else []
    if tested is not None:
        words += ["--config.data.held_out_share=0", f"--config.test.split={tested}"]
    else:
        content = read_annotations(output / trained / "instances.json")
        labels = [{track.label for track in some} for some in content.tracks]
        if not draw_held_out(content.videos, labels, share=1.0):
            words.append("--config.test.split=train")
    root = shlex.quote(str(output))
    workdir = shlex.quote(f"runs/{output.resolve().name}")
    lines = [
        f"python -m vis_jax.main --config {RECIPE}",
        f"--workdir {workdir} --config.data.root={root}",
        *([" ".join(map(shlex.quote, words))] if words else []),
    ]
    return " \\\n                  ".join(lines)
