"""Infers videos and frame numbers from file names."""

import re
from collections.abc import Iterable
from pathlib import Path, PurePath
from typing import NamedTuple

from data_pipeline.errors import DataError
from data_pipeline.file_names import natural_order

# Roboflow: cat_000012.jpg becomes cat_000012_jpg.rf.<letters and digits>.jpg.
_ROBOFLOW = re.compile(r"(.+)_(?:bmp|jpe?g|png|tiff?|webp)\.rf\.[0-9a-z]+", re.I)
_NUMBERED = re.compile(r"(.*?)[-_. ]*([0-9]+)")


class FrameName(NamedTuple):
    """Video and number of a frame, parsed from its file name."""

    stem: str  # without suffix and Roboflow's addition
    video: str  # the stem without its last number; "video" if nothing is left
    number: int | None  # None: the stem does not end in a number


def read_name(name: str) -> FrameName:
    """Parses the name of an image, ignoring its folders."""
    stem = PurePath(name).stem
    exported = _ROBOFLOW.fullmatch(stem)
    stem = exported[1] if exported else stem
    numbered = _NUMBERED.fullmatch(stem)
    if numbered is None or len(numbered[2]) > 18:
        return FrameName(stem, "video", None)
    return FrameName(stem, numbered[1] or "video", int(numbered[2]))


def group_frames(files: Iterable[Path], root: Path) -> dict[str, list[Path]]:
    """Groups images by video name, in natural order.

    A folder of images is a video; images in `root` itself are grouped by their names.

    Args:
      files: images in `root` or its subfolders.
      root: the folder of all images.

    Raises:
      DataError: a frame has two images, as from augmentation.
    """
    groups: dict[str, dict[str, Path]] = {}
    for file in files:
        name, folder = read_name(file.name), file.parent.relative_to(root).as_posix()
        video = groups.setdefault(name.video if folder == "." else folder, {})
        first = video.setdefault(name.stem, file)
        if first is not file:
            expected = "one image of each frame, as exports without augmentation have"
            got = f"two of {name.stem}, the other is {first.name}"
            raise DataError(file, expected=expected, got=got)
    return {
        name: [groups[name][stem] for stem in sorted(groups[name], key=_by_name)]
        for name in sorted(groups, key=_by_name)
    }


def _by_name(name: str) -> tuple:
    return natural_order(PurePath(name))
