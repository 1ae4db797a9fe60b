"""Extracts frames of videos as image files, for labelling in any tool.

Frame 120 of cat.mp4 becomes OUTPUT/cat/cat_000120.jpg: a number means the same frame
for any --every, and files sort in display order. A folder appears when it is complete.
Finished videos are not read again: after an interruption the same command resumes with
the video it stopped at. Of several videos, one that cannot be extracted does not stop
the others; such videos are listed at the end, and the exit code is 3.

examples:
  python -m vis_jax.main data extract --source phone.mp4 --output frames --every 5
  python -m vis_jax.main data extract --source videos/ --output frames --every 10
  python -m vis_jax.main data extract --source phone.mp4 --output frames \\
      --start 1:12.5 --end 1:20 --format png
"""

import sys
from typing import TYPE_CHECKING

from absl import flags

from vis_jax.commands.predict_videos import SOME_FAILED

if TYPE_CHECKING:
    from pathlib import Path

    from vis_jax.predict.extract import Extracted, FrameChoice
    from vis_jax.predict.many import OneVideo


def define(values: flags.FlagValues, arguments: list[str]) -> None:
    """Adds the flags of this command."""
    del arguments
    texts = {
        "source": "a video file, a folder of videos, or a .txt with a path per line",
        "output": "folder to write to; each video gets its own subfolder",
        "start": "time in each video of the first frame: seconds or hh:mm:ss",
        "end": "time in each video to stop at: seconds or hh:mm:ss; default: its end",
    }
    for name, text in texts.items():
        flags.DEFINE_string(name, None, text, flag_values=values)
    flags.DEFINE_integer(
        "every",
        1,
        "extract every n-th frame; 5 turns 30 frames per second into 6",
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

    Exits with SOME_FAILED if some of several videos fail.

    Raises:
      ValueError: a flag is wrong, or the only video cannot be read.
    """
    for name, what in (
        ("source", "a video or a folder of videos"),
        ("output", "a folder"),
    ):
        if not getattr(values, name):
            raise ValueError(f"--{name}: expected {what}, got none")
    from pathlib import Path

    from data_pipeline.errors import printable
    from vis_jax.predict.errors import PredictError
    from vis_jax.predict.extract import FrameChoice, find
    from vis_jax.predict.part import read_part

    part = read_part(values.start, values.end, values.every)
    choice = FrameChoice(part.every, part.start, part.end, values.format)
    found = find(values.source)
    for name in found.ignored:
        print(printable(f"left out      {Path(name).name}: no video"))
    failed, total = [], 0
    for video in found.videos:
        try:
            total += _extract(video, Path(values.output), choice).frames
        except PredictError as error:
            if len(found.videos) == 1:
                raise
            failed.append(str(error))
    videos = len(found.videos) - len(failed)
    print(f"frames        {total} of {videos} videos in {values.output}")
    for text in failed:
        print(f"failed: {printable(text)}", file=sys.stderr)
    if failed:
        sys.exit(SOME_FAILED)


def _extract(video: "OneVideo", output: "Path", choice: "FrameChoice") -> "Extracted":
    """Extracts one video and prints what was written.

    Raises:
      PredictError: see `vis_jax.predict.extract.extract`.
    """
    from tqdm import tqdm

    from data_pipeline.errors import printable
    from vis_jax.predict.extract import extract

    with tqdm(
        desc=video.name, unit=" frames", disable=not sys.stderr.isatty(), leave=False
    ) as bar:
        outcome = extract(video, output, choice, bar.update)
    done = "" if outcome.written else " (there already, not read again)"
    print(printable(f"video         {video.name}: {outcome.frames} frames{done}"))
    for line in outcome.warnings:
        print(printable(f"warning: {line}"))
    return outcome
