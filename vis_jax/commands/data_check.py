"""Checks a folder in YouTube-VIS or OVIS format and lists every defect.

Annotations and images are read as in training and evaluation. Prints a line for each
defect, with file, video, annotation and field, a line for each oddity (warnings), and
then the counts of each category. The exit code is 0 without defects and 2 otherwise.

examples:
  python -m vis_jax.main data check --root ytvis2019 --split train
  python -m vis_jax.main data check --root made --contact_sheet made.png \\
      --sheet_videos 12
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

if TYPE_CHECKING:
    from data_pipeline.checks.folder import Checked


def define(values: flags.FlagValues, arguments: list[str]) -> None:
    """Adds the flags of this command."""
    del arguments
    texts = {
        "root": (None, "folder of the data set"),
        "split": ("train", "split to check; ignored if the data set has no splits"),
        "contact_sheet": (None, "PNG to write: frames with their masks, numbered"),
    }
    for name, (default, text) in texts.items():
        flags.DEFINE_string(name, default, text, flag_values=values)
    flags.DEFINE_integer(
        "sheet_videos", 8, "rows of the contact sheet", flag_values=values
    )


def run(values: flags.FlagValues) -> None:
    """Prints the defects, warnings and counts, and draws the sheet.

    Raises:
      ValueError: a flag is wrong, or defects were found.
    """
    _check_flags(values)
    from tqdm import tqdm

    from data_pipeline.checks.folder import check_folder

    found = {"defect": 0, "warning": 0}

    def report(kind: str, error: ValueError) -> None:
        found[kind] += 1
        tqdm.write(_printable(f"{kind}: {error}"), file=sys.stdout)

    checked = check_folder(
        values.root,
        values.split,
        defect=lambda error: report("defect", error),
        warning=lambda error: report("warning", error),
        progress=sys.stderr.isatty(),
    )
    _print_counts(checked)
    if values.contact_sheet:
        _write_sheet(values, checked)
    print(f"defects       {found['defect']}")
    print(f"warnings      {found['warning']}")
    if found["defect"]:
        file = checked.layout.annotations
        raise ValueError(f"{file}: expected no defects, got {found['defect']}")


def _check_flags(values: flags.FlagValues) -> None:
    if not values.root:
        raise ValueError("--root: expected a folder, got none")
    if values.sheet_videos < 1:
        raise ValueError(
            f"--sheet_videos: expected 1 or more, got {values.sheet_videos}"
        )
    if values.contact_sheet:
        from vis_jax.commands.truth_sheet import check_sheet

        check_sheet(values.contact_sheet)


def _print_counts(checked: "Checked") -> None:
    from data_pipeline.checks.folder import count

    rows = count(checked.content)
    width = max(len("category"), *(len(_printable(row.name)) for row in rows))
    print(f"{'category':<{width}}  videos  tracks  frames with a mask")
    for row in rows:
        name = f"{_printable(row.name):<{width}}"
        print(f"{name}  {row.videos:>6}  {row.tracks:>6}  {row.frames:>18}")
    videos = checked.content.videos
    print(f"annotations   {_printable(str(checked.layout.annotations))}")
    print(f"images        {_printable(str(checked.layout.images))}")
    print(f"videos        {len(videos)}, {sum(v.length for v in videos)} frames")


def _write_sheet(values: flags.FlagValues, checked: "Checked") -> None:
    from vis_jax.commands.truth_sheet import write_sheet

    shown = write_sheet(Path(values.contact_sheet), checked, values.sheet_videos)
    if shown:
        print(f"sheet         {values.contact_sheet}, {shown} videos")
    else:
        print("sheet         none: no video can be read")


def _printable(text: str) -> str:
    """Returns one line without control characters that the terminal can encode."""
    from data_pipeline.errors import printable

    line = printable(text)
    encoding = sys.stdout.encoding or "utf-8"
    return line.encode(encoding, "backslashreplace").decode(encoding)
