"""The flags of `predict`."""

import re
from typing import TYPE_CHECKING

from absl import flags

if TYPE_CHECKING:
    from vis_jax.predict.writer import Wanted
    from vis_jax.visualize.colours import Style


def define_flags(values: flags.FlagValues) -> None:
    """Adds the flags of `predict`, except the config."""
    _define_input(values)
    _define_choice(values)
    _define_drawing(values)


def _define_input(values: flags.FlagValues) -> None:
    """Adds flags for the model, the videos and the output."""
    texts = {
        "workdir": "folder of a training run; gives config, classes and checkpoint;"
        " without it, --checkpoint gives them",
        "checkpoint": "folder of a checkpoint, or weights by name, such as shapes;"
        " default: the newest of --workdir",
        "start": "seconds or hh:mm:ss of the first frame that is read",
        "end": "seconds or hh:mm:ss; frames from there on are not read",
        "raw": "width x height of raw frames (rgb24) on standard input, as 640x360",
        "output": "folder for what --save names; with many videos, it gets a folder for"
        " each",
        "shard": "NUMBER/COUNT, such as 3/16: only this part of many videos; numbers go"
        " from 1 to COUNT",
    }
    for name, text in texts.items():
        flags.DEFINE_string(name, None, text, flag_values=values)
    flags.DEFINE_multi_string(
        "source",
        [],
        "video file, folder of frames, a quoted pattern as 'frames/*.jpg', - for"
        " standard input, camera:0, or http://.., https://.., rtsp://..; a folder of"
        " videos, or a .txt file that lists them; several times for several videos",
        flag_values=values,
    )
    flags.DEFINE_integer("every", 1, "read one of so many frames", flag_values=values)
    flags.DEFINE_bool(
        "overwrite",
        False,
        "replace earlier results in --output; of many videos, those of another config,"
        " checkpoint or video",
        flag_values=values,
    )


def _define_choice(values: flags.FlagValues) -> None:
    """Adds flags for the objects to keep and the files to write."""
    from vis_jax.predict.formats import DEFAULT, FORMATS

    known = ", ".join(f"{name} ({form.text})" for name, form in FORMATS.items())
    flags.DEFINE_list(
        "classes",
        [],
        "names of classes, separated by commas: objects of others are left out",
        flag_values=values,
    )
    flags.DEFINE_list(
        "tracks",
        [],
        "ids of tracks, separated by commas: others are left out",
        flag_values=values,
    )
    flags.DEFINE_float(
        "score_threshold",
        0.3,
        "what is below is in no file but results.json",
        flag_values=values,
    )
    flags.DEFINE_list(
        "save",
        list(DEFAULT),
        f"what is written, separated by commas: {known}",
        flag_values=values,
    )
    switches = {
        "pngs": (False, "as ids in --save"),
        "video": (True, "--novideo: as --save without mp4"),
    }
    for name, (default, text) in switches.items():
        flags.DEFINE_bool(name, default, text, flag_values=values)


def _define_drawing(values: flags.FlagValues) -> None:
    """Adds flags for the style of the drawn video."""
    from vis_jax.visualize.colours import STYLE

    flags.DEFINE_float(
        "fps",
        None,
        "of the drawn video, then without sound, and of raw frames, 0.01 .. 1000;"
        " default: the times of the source",
        flag_values=values,
    )
    numbers = {
        "opacity": (STYLE.opacity, "of drawn masks, 0 .. 1"),
        "line_width": (
            STYLE.line_width,
            "pixels, of drawn outlines, boxes and paths; 0: by the size of the frame",
        ),
    }
    for name, (number, text) in numbers.items():
        flags.DEFINE_float(name, number, text, flag_values=values)
    flags.DEFINE_integer(
        "trails",
        0,
        "draw the path of each track over so many frames",
        flag_values=values,
    )
    switches = {
        "boxes": (STYLE.boxes, "also draw boxes"),
        "labels": (STYLE.labels, "draw id, class and score of each object"),
    }
    for name, (default, text) in switches.items():
        flags.DEFINE_bool(name, default, text, flag_values=values)


def read_wanted(values: flags.FlagValues) -> "Wanted":
    """Returns the requested outputs.

    Raises:
      ValueError: an id in --tracks is not a number, or --save has an unknown format.
    """
    from vis_jax.predict.formats import read_formats
    from vis_jax.predict.writer import Wanted

    for text in values.tracks:
        if not re.fullmatch(r"[1-9]\d*", text):
            raise ValueError(f"--tracks: expected ids as 1,4,7, got {text}")
    names = {*values.save, *(["ids"] if values.pngs else [])}
    return Wanted(
        values.score_threshold,
        read_formats(sorted(names if values.video else names - {"mp4"})),
        values.fps,
        classes=tuple(values.classes),
        tracks=tuple(map(int, values.tracks)),
        style=_style(values),
    )


def _style(values: flags.FlagValues) -> "Style":
    """Returns the drawing style.

    Raises:
      ValueError: a number is out of range; names the flag.
    """
    from vis_jax.visualize.colours import Style

    limits = {"opacity": (0, 1), "line_width": (0, 100), "trails": (0, 100_000)}
    for name, (low, high) in limits.items():
        got = getattr(values, name)
        if not low <= got <= high:
            raise ValueError(f"--{name}: expected {low} .. {high}, got {got}")
    return Style(
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
