"""Locates the annotation JSON of a data set, and its images."""

from collections.abc import Iterator
from pathlib import Path

from data_pipeline.convert.source_folder import SourceFolder
from data_pipeline.errors import DataError

ANNOTATIONS = (
    "{split}/instances.json",
    "{split}.json",
    "{split}/{split}.json",
    "{split}/annotations.json",
    "{split}/_annotations.coco.json",  # Roboflow
    "annotations_{split}.json",
    "annotations/annotations_{split}.json",
    "annotations/instances_{split}.json",
    "annotations/instances_{split}_sub.json",
    "annotations/{split}.json",
    "instances_{split}.json",
    "{split}/JPEGImages/instances.json",
    "{split}/JPEGImages/{split}.json",
    "JPEGImages/{split}.json",
    "JPEGImages/instances.json",
    "instances.json",
    "annotations.json",
    "annotations/instances_default.json",  # CVAT's name where a task has no splits
)
_IMAGES = (
    "{split}/JPEGImages",
    "{split}/images",
    "{split}",
    "JPEGImages/{split}",
    "images/{split}",
    "JPEGImages",
    "images",
    "images/default",
    "",
)


def annotation_files(source: SourceFolder, key: str) -> Iterator[tuple[Path, dict]]:
    """Yields JSON files in the usual places that have a list under `key`.

    Raises:
      DataError: a file in such a place is not a JSON object.
    """
    for file in source.candidates(*ANNOTATIONS):
        if file.is_file():
            content = source.json(file)
            if isinstance(content.get(key), list):
                yield file, content


def image_folder(source: SourceFolder, file: Path, name: str) -> Path:
    """Finds the folder that contains an annotated file name.

    Raises:
      DataError: none of the usual folders has it; lists them.
    """
    folders = [*source.candidates(*_IMAGES), file.parent]
    for folder in dict.fromkeys(folders):
        if (folder / name).is_file():
            return folder
    shown = ", ".join(f"{folder.relative_to(source.root)}/" for folder in folders)
    raise DataError(file, expected=f"its first image, {name}, in {shown}", got="none")


def show(source: SourceFolder, path: Path) -> str:
    """Formats a path relative to the folder."""
    return path.relative_to(source.root).as_posix()
