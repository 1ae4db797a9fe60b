"""Locates annotations and images in a YouTube-VIS or OVIS folder."""

from pathlib import Path
from typing import NamedTuple

from data_pipeline.errors import DataError
from data_pipeline.images import check_inside

# (annotation file, image folders in the order tried), relative to the root.
# YouTube-VIS 2021 and 2022; 2019; OVIS, twice; one set without splits.
LAYOUTS = (
    ("{split}/instances.json", ("{split}/JPEGImages",)),
    ("{split}.json", ("{split}/JPEGImages", "JPEGImages")),
    ("annotations_{split}.json", ("{split}/JPEGImages", "{split}", "JPEGImages")),
    (
        "annotations/annotations_{split}.json",
        ("{split}/JPEGImages", "{split}", "JPEGImages"),
    ),
    ("instances.json", ("JPEGImages",)),
)

# In the folder of a split written by `write.tfds_builder`: tensorflow-datasets.
TFDS_FRAMES, TFDS_VIDEOS, TFDS_VERSION = "vis_frames", "vis_videos", "1.0.0"


class DatasetPaths(NamedTuple):
    """Paths of a data set."""

    annotations: Path
    images: Path
    root: Path  # contains both, with links resolved


def is_tfds(root: str | Path, split: str) -> bool:
    """Returns whether a split written by `write.tfds_builder` exists."""
    return (Path(root) / split / TFDS_VIDEOS).is_dir()


def find_layout(root: str | Path, split: str) -> DatasetPaths:
    """Finds the annotation file and the image folder of a split.

    Args:
      root: folder of the data set.
      split: for example "train"; ignored if the set has no splits.

    Raises:
      DataError: no known layout fits; lists the paths looked for. Or a link leads out
        of the folder.
    """
    root = Path(root)
    if not isinstance(split, str) or not split or Path(split).name != split:
        raise DataError(root, field="split", expected="the name of a folder", got=split)
    if not root.is_dir():
        raise DataError(root, expected="a folder", got="no such folder")
    looked_for = []
    for annotations, folders in LAYOUTS:
        file = root / annotations.format(split=split)
        images = [root / folder.format(split=split) for folder in folders]
        found = next((folder for folder in images if folder.is_dir()), None)
        if file.is_file() and found is not None:
            check_inside(file, root)
            check_inside(found, root)
            return DatasetPaths(file, found, root)
        names = " or ".join(f"{folder.relative_to(root)}/" for folder in images)
        state = "" if not file.is_file() else " (this file is there, no such folder)"
        looked_for.append(f"{file.relative_to(root)} with {names}{state}")
    raise DataError(
        root,
        expected=f"split {split!r} as one of: {'; '.join(looked_for)}",
        got="none of them",
    )
