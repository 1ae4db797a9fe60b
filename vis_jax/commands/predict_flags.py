"""The flags of `predict`."""

import re
from typing import TYPE_CHECKING

from absl import flags

from vis_jax.commands import parts

if TYPE_CHECKING:
    from vis_jax.predict.writer import RequestedOutputs
    from vis_jax.visualize.colours import DrawStyle


def define_flags(values: flags.FlagValues) -> None:
    """Adds the flags of `predict`, except the config."""
    _define_input(values)
    _define_choice(values)
    _define_drawing(values)


def _define_input(values: flags.FlagValues) -> None:
    """Adds flags for the model, the videos and the output."""
    texts = {
        **parts.MODEL_FLAGS,
        "start": "time of the first frame to read: seconds or hh:mm:ss",
        "end": "time to stop reading at: seconds or hh:mm:ss",
        "raw": "width x height of raw frames (rgb24) on standard input, e.g. 640x360",
        "output": "folder for the files of --save; with many videos, each gets its own"
        " subfolder",
        "shard": "NUMBER/COUNT, such as 3/16: predict only this part of many videos;"
        " numbers go from 1 to COUNT",
    }
    for name, text in texts.items():
        flags.DEFINE_string(name, None, text, flag_values=values)
    flags.DEFINE_multi_string(
        "source",
        [],
        "video file, folder of frames, a quoted pattern such as 'frames/*.jpg', - for"
        " standard input, camera:0, or http://.., https://.., rtsp://..; a folder of"
        " videos, or a .txt file that lists them; more paths may follow",
        flag_values=values,
    )
    flags.DEFINE_integer("every", 1, "read every n-th frame", flag_values=values)
    flags.DEFINE_bool(
        "overwrite",
        False,
        "replace earlier results in --output; with many videos, only those of another"
        " config, checkpoint or video",
        flag_values=values,
    )


def _define_choice(values: flags.FlagValues) -> None:
    """Adds flags for the objects to keep and the files to write."""
    from vis_jax.predict.formats import DEFAULT, FORMATS

    known = ", ".join(f"{name} ({form.text})" for name, form in FORMATS.items())
    flags.DEFINE_list(
        "classes",
        [],
        "names of the classes to keep, separated by commas; all if empty",
        flag_values=values,
    )
    flags.DEFINE_list(
        "tracks",
        [],
        "ids of the tracks to keep, separated by commas; all if empty",
        flag_values=values,
    )
    flags.DEFINE_float(
        "score_threshold",
        0.3,
        "objects with a lower score appear only in results.json",
        flag_values=values,
    )
    flags.DEFINE_list(
        "save",
        list(DEFAULT),
        f"files to write, separated by commas: {known}",
        flag_values=values,
    )
    switches = {
        "pngs": (False, "same as ids in --save"),
        "video": (True, "--novideo: same as --save without mp4"),
    }
    for name, (default, text) in switches.items():
        flags.DEFINE_bool(name, default, text, flag_values=values)


def _define_drawing(values: flags.FlagValues) -> None:
    """Adds flags for the style of the drawn video."""
    from vis_jax.visualize.colours import STYLE

    flags.DEFINE_float(
        "fps",
        None,
        "frames per second of the drawn video, which then has no sound, and of raw"
        " frames, 0.01 .. 1000; default: the frame times of the source",
        flag_values=values,
    )
    numbers = {
        "opacity": (STYLE.opacity, "opacity of drawn masks, 0 .. 1"),
        "line_width": (
            STYLE.line_width,
            "pixels, of drawn outlines, boxes and paths; 0: chosen by frame size",
        ),
    }
    for name, (number, text) in numbers.items():
        flags.DEFINE_float(name, number, text, flag_values=values)
    flags.DEFINE_integer(
        "trails",
        0,
        "draw the path of each track over this many frames",
        flag_values=values,
    )
    switches = {
        "boxes": (STYLE.boxes, "also draw boxes"),
        "labels": (STYLE.labels, "draw id, class and score of each object"),
    }
    for name, (default, text) in switches.items():
        flags.DEFINE_bool(name, default, text, flag_values=values)


def read_wanted(values: flags.FlagValues) -> "RequestedOutputs":
    """Returns the requested outputs.

    Raises:
      ValueError: an id in --tracks is not a number, or --save has an unknown format.
    """
    from vis_jax.predict.formats import read_formats
    from vis_jax.predict.writer import RequestedOutputs

    for text in values.tracks:
        if not re.fullmatch(r"[1-9]\d*", text):
            raise ValueError(f"--tracks: expected ids as 1,4,7, got {text}")
    names = {*values.save, *(["ids"] if values.pngs else [])}
    return RequestedOutputs(
        values.score_threshold,
        read_formats(sorted(names if values.video else names - {"mp4"})),
        values.fps,
        classes=tuple(values.classes),
        tracks=tuple(map(int, values.tracks)),
        style=_style(values),
    )


def _style(values: flags.FlagValues) -> "DrawStyle":
    """Returns the drawing style.

    Raises:
      ValueError: a number is out of range; names the flag.
    """
    from vis_jax.visualize.colours import DrawStyle

    limits = {"opacity": (0, 1), "line_width": (0, 100), "trails": (0, 100_000)}
    for name, (low, high) in limits.items():
        got = getattr(values, name)
        if not low <= got <= high:
            raise ValueError(f"--{name}: expected {low} .. {high}, got {got}")
    return DrawStyle(
        values.opacity, values.line_width, values.labels, values.boxes, values.trails
    )


def raw_size(text: str | None) -> tuple[int, int] | None:
    """Parses "640x360", width first, to (height, width).

    Raises:
      ValueError: the text has another form.
    """
    if text is None:
        return None
    found = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", text)
    if found is None:
        raise ValueError(f"--raw: expected width x height as 640x360, got {text}")
    return int(found[2]), int(found[1])
