"""Videos and numbers of frames by the names of files, where no field states them."""

import re
from pathlib import PurePath
from typing import NamedTuple

# Roboflow: cat_000012.jpg becomes cat_000012_jpg.rf.<letters and digits>.jpg.
_ROBOFLOW = re.compile(r"(.+)_(?:bmp|jpe?g|png|tiff?|webp)\.rf\.[0-9a-z]+", re.I)
_NUMBERED = re.compile(r"(.*?)[-_. ]*([0-9]+)")


class FrameName(NamedTuple):
    """What the name of an image says."""

    stem: str  # without ending, and without what Roboflow adds
    video: str  # the stem without its last number; "video" if nothing is left
    number: int | None  # None: it does not end in a number


def read_name(name: str) -> FrameName:
    """Takes the name of an image apart; folders in front of it say nothing."""
    stem = PurePath(name).stem
    exported = _ROBOFLOW.fullmatch(stem)
    stem = exported[1] if exported else stem
    numbered = _NUMBERED.fullmatch(stem)
    if numbered is None or len(numbered[2]) > 18:
        return FrameName(stem, "video", None)
    return FrameName(stem, numbered[1] or "video", int(numbered[2]))
