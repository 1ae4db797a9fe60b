"""Extracts frames of videos as image files, for labelling in any tool.

Frame 120 of cat.mp4 becomes OUTPUT/cat/cat_000120.jpg: a number means the same frame
for any --every, and files sort in display order. A folder appears when it is complete.
Finished videos are not read again: after an interruption the same command resumes with
the video it stopped at.

examples:
  python -m vis_jax.main data extract --source phone.mp4 --output frames --every 5
  python -m vis_jax.main data extract --source videos/ --output frames --every 10
  python -m vis_jax.main data extract --source phone.mp4 --output frames \\
      --start 12.5 --end 20 --format png
"""

import math
import sys

from absl import flags


def define(values: flags.FlagValues, arguments: list[str]) -> None:
    """Adds the flags of this command."""
    del arguments
    texts = {
        "source": "a video file, a folder of videos, or a .txt with a path per line",
        "output": "folder to write to; each video gets its own subfolder",
    }
    for name, text in texts.items():
        flags.DEFINE_string(name, None, text, flag_values=values)
    flags.DEFINE_integer(
        "every",
        1,
        "extract every n-th frame; 5 turns 30 frames per second into 6",
        flag_values=values,
    )
    flags.DEFINE_float(
        "start",
        0.0,
        "seconds to skip at the start of each video",
        flag_values=values,
    )
    flags.DEFINE_float(
        "end",
        None,
        "seconds at which to stop in each video; default: its end",
        flag_values=values,
    )
    flags.DEFINE_enum(
        "format",
        "jpg",
        ("jpg", "png"),
        "jpg (quality 95) or png (lossless, several times as large)",
        flag_values=values,
    )


def run(values: flags.FlagValues) -> None:
    """Writes the frames and prints their number per video.

    Raises:
      ValueError: a flag is wrong, or a video cannot be read.
    """
    _check_flags(values)
    from pathlib import Path

    from tqdm import tqdm

    from data_pipeline.errors import printable
    from vis_jax.predict.extract import FrameChoice, extract, find

    found = find(values.source)
    choice = FrameChoice(values.every, values.start, values.end, values.format)
    for name in found.ignored:
        print(printable(f"left out      {Path(name).name}: no video"))
    output, total = Path(values.output), 0
    for video in found.videos:
        with tqdm(
            desc=video.name,
            unit=" frames",
            disable=not sys.stderr.isatty(),
            leave=False,
        ) as bar:
            outcome = extract(video, output, choice, bar.update)
        total += outcome.frames
        done = "" if outcome.written else " (there already, not read again)"
        print(printable(f"video         {video.name}: {outcome.frames} frames{done}"))
        for line in outcome.warnings:
            print(printable(f"warning: {line}"))
    print(f"frames        {total} of {len(found.videos)} videos in {values.output}")


def _check_flags(values: flags.FlagValues) -> None:
    for name, what in (
        ("source", "a video or a folder of videos"),
        ("output", "a folder"),
    ):
        if not getattr(values, name):
            raise ValueError(f"--{name}: expected {what}, got none")
    if values.every < 1:
        raise ValueError(f"--every: expected 1 or more, got {values.every}")
    if not (math.isfinite(values.start) and values.start >= 0):
        raise ValueError(f"--start: expected 0 or more seconds, got {values.start}")
    if values.end is not None and not values.end > values.start:
        raise ValueError(f"--end: expected more than --start, got {values.end}")
