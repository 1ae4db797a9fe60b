"""Converts YOLO segmentation: data.yaml, and a text file of polygons per image.

A line is `class x1 y1 x2 y2 ..` in fractions of width and height; Ultralytics' tracking
output (`save_txt`) appends an identity.
"""

import os
from collections.abc import Iterator
from functools import lru_cache, partial
from pathlib import Path, PurePosixPath

import numpy as np
import yaml

from data_pipeline.convert.foreign import (
    DetectedLayout,
    Foreign,
    ForeignLabel,
    ForeignTrack,
    ForeignVideo,
    convert,
    join_tracks,
)
from data_pipeline.convert.frame_names import group_frames
from data_pipeline.convert.json_layout import show
from data_pipeline.convert.source_folder import (
    SourceFolder,
    check_size,
    image_size,
    walk_images,
)
from data_pipeline.datasets.dataset import Category
from data_pipeline.errors import DataError, Fail, is_name

LOOKED_FOR = "data.yaml with 'names' and '{split}', polygons in labels/ beside images/"
_FILES = ("data.yaml", "dataset.yaml", "data.yml", "dataset.yml")
_MAX_YAML = 2**20  # bytes
_MAX_LABELS = 2**26  # bytes, of an image
_BEYOND = 0.01  # tolerance for points outside the frame, as a fraction of the side


def find(source: SourceFolder) -> DetectedLayout | None:
    """Recognises data.yaml by its names; `train`, `val` or `test` say where images are.

    Raises:
      DataError: a defect of data.yaml, or the images are missing.
    """
    for file in source.candidates(*_FILES):
        if not file.is_file():
            continue
        content = _read_yaml(source, file)
        if "names" in content:
            categories = _categories(file, content)
            root, images = _images(source, file, content)
            why = f"{show(source, file)} has names, {show(source, root)}/ has"
            why += f" {len(images)} images"
            return DetectedLayout(
                "yolo", why, partial(_read, source, root, images, categories)
            )
    return None


def _read_yaml(source: SourceFolder, file: Path) -> dict:
    check_size(source.inside(file), _MAX_YAML)
    try:
        content = yaml.safe_load(file.read_bytes())
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        got = " ".join(str(error).split())
        raise DataError(file, expected="YAML", got=got) from error
    return content if isinstance(content, dict) else {}


def _categories(file: Path, content: dict) -> tuple[Category, ...]:
    """Returns categories by number; ids count from 1, as 0 is not valid elsewhere.

    Raises:
      DataError: invalid names, a number of names other than `nc`, or key points.
    """
    fail = partial(DataError, file)
    if content.get("kpt_shape") is not None:
        expected, got = "none: labels that are polygons", content["kpt_shape"]
        raise fail(field="kpt_shape", expected=expected, got=got)
    names = content["names"]
    named = dict(enumerate(names)) if isinstance(names, list) else names
    if not isinstance(named, dict) or list(named) != list(range(len(named))):
        expected = "a list of names, or names by number from 0 on"
        raise fail(field="names", expected=expected, got=names)
    found = list(named.values())
    for k, name in named.items():
        if not is_name(name) or found.index(name) != k:
            expected = "a name on one line, used once"
            raise fail(field=f"names[{k}]", expected=expected, got=name)
    if content.get("nc", len(found)) != len(found):
        expected = f"{len(found)}, as there are names"
        raise fail(field="nc", expected=expected, got=content["nc"])
    return tuple(Category(k + 1, name) for k, name in enumerate(found))


def _images(source: SourceFolder, file: Path, content: dict) -> tuple[Path, list[Path]]:
    """Returns the image folder of the split, and its images.

    Raises:
      DataError: data.yaml has no such split, or there are no images.
    """
    key = next((name for name in source.splits if content.get(name)), None)
    if key is None:
        there = [k for k in ("train", "val", "test") if content.get(k)]
        expected = f"one of {', '.join(there)}, which {file.name} has"
        raise DataError(source.root, field="split", expected=expected, got=source.split)
    given = content[key]
    places = [place for place in _places(source, content, given) if place.exists()]
    if not places:
        expected = "a folder or a list (.txt) inside the source"
        raise DataError(file, field=key, expected=expected, got=given)
    place = places[0]
    if place.is_dir():
        found = list(walk_images(source, place))
    else:
        found = _listed(source, place)
        place = _common(found)
    if not found:
        raise DataError(place, expected="images", got="none")
    return place, found


def _places(source: SourceFolder, content: dict, given: object) -> Iterator[Path]:
    """Yields candidates for a path of data.yaml.

    Its `path` is often from another machine, and Roboflow writes `../train/images` for
    a folder beside data.yaml.
    """
    if not isinstance(given, str) or "\0" in given:
        return
    base = content.get("path")
    inner = PurePosixPath(given.replace("\\", "/"))
    stripped = PurePosixPath(*(part for part in inner.parts if part not in ("..", "/")))
    bases = [source.root / base] if isinstance(base, str) and "\0" not in base else []
    for place in (*(one / inner for one in bases), source.root / stripped):
        if place.resolve().is_relative_to(source.root.resolve()):
            yield source.root / place.resolve().relative_to(source.root.resolve())


def _listed(source: SourceFolder, file: Path) -> list[Path]:
    """Reads a list of images, with paths relative to it or to the source."""
    check_size(source.inside(file), _MAX_LABELS)
    images = []
    for number, line in enumerate(
        file.read_text("utf-8-sig", "replace").splitlines(), 1
    ):
        name = line.strip().removeprefix("./")
        if not name:
            continue
        places = [folder / name for folder in (file.parent, source.root)]
        image = next((p for p in places if "\0" not in name and p.is_file()), None)
        if image is None:
            field = f"line {number}"
            raise DataError(
                file, field=field, expected="the path of an image", got=name
            )
        source.inside(image)
        images.append(source.root / os.path.relpath(image, source.root))
    return images


def _common(files: list[Path]) -> Path:
    """Returns the innermost folder containing all files, which names a single video."""
    parents = {file.parent for file in files}
    if len(parents) == 1:
        return parents.pop()
    return next(p for p in files[0].parents if all(p in f.parents for f in files))


def _read(
    source: SourceFolder,
    root: Path,
    images: list[Path],
    categories: tuple[Category, ...],
) -> Foreign:
    groups = group_frames(images, root)
    alone = _labels_without_image(source, images)
    notes = (f"{alone} label files without an image of the split",) if alone else ()
    videos = [
        ForeignVideo(name, tuple(files), image_size(files[0]))
        for name, files in groups.items()
    ]

    @lru_cache(maxsize=1)  # asked for twice in a row
    def rows(index: int) -> list[tuple[ForeignLabel, int | None]]:
        return _rows(source, videos[index], categories)

    def tracks(index: int) -> list[ForeignTrack]:
        stated = [
            (number, label) for label, number in rows(index) if number is not None
        ]
        fail = partial(DataError, videos[index].files[0].parent)
        return join_tracks(stated, videos[index], fail)

    def labels(index: int) -> list[ForeignLabel]:
        return [label for label, number in rows(index) if number is None]

    return Foreign(
        tuple(videos),
        tracks,
        categories,
        lambda: notes,
        labels=labels,
        identity="the last number of a line",
    )


def _rows(
    source: SourceFolder, video: ForeignVideo, categories: tuple[Category, ...]
) -> list[tuple[ForeignLabel, int | None]]:
    """Reads the labels of a video, with their identities if given.

    Raises:
      DataError: a defect of a line, or only some lines have identities.
    """
    found: list[tuple[ForeignLabel, int | None]] = []
    stated: bool | None = None  # whether lines have identities
    for frame, image in enumerate(video.files):
        file = _label_file(source, image)
        if not file.is_file():  # an image without objects
            continue
        check_size(source.inside(file), _MAX_LABELS)
        lines = file.read_text("utf-8-sig", "replace").splitlines()
        first = {line: k for k, line in reversed(list(enumerate(lines, 1)))}
        for number, line in enumerate(lines, 1):
            if not line.strip() or first[line] != number:  # skips duplicate lines
                continue
            fail = partial(DataError, file, video=video.name)
            here = partial(_at, fail, number)
            name, points, identity = _split(line, categories, here)
            if stated not in (None, identity is not None):
                expected = "an identity in all lines of a video, or in none"
                raise here(field="", expected=expected, got=line)
            stated = identity is not None
            polygon = (points * video.size[::-1]).ravel().tolist()
            mask = convert([polygon], video.size, here)
            if mask is not None:
                found.append((ForeignLabel(name, False, frame, mask), identity))
    return found


def _at(fail: Fail, line: int, *, field: str, expected: str, got: object) -> DataError:
    place = f"line {line}" + (f", {field}" if field else "")
    return fail(field=place, expected=expected, got=got)


def _label_file(source: SourceFolder, image: Path) -> Path:
    """Returns the text file of an image.

    In its path within the source, the last `images` becomes `labels`.
    """
    parts = list(image.relative_to(source.root).with_suffix(".txt").parts)
    places = [k for k, part in enumerate(parts[:-1]) if part == "images"]
    if places:
        parts[places[-1]] = "labels"
    return source.root.joinpath(*parts)


# Names of classes, and lists of images.
_NO_LABELS = ("classes.txt", "train.txt", "val.txt", "valid.txt", "test.txt")


def _labels_without_image(source: SourceFolder, images: list[Path]) -> int:
    """Counts the text files beside those of the images."""
    files = {_label_file(source, image) for image in images}
    found = {
        text
        for folder in {file.parent for file in files}
        for text in source.files(folder, ".txt")
        if text.name not in _NO_LABELS
    }
    return len(found - files)


def _split(
    line: str, categories: tuple[Category, ...], fail: Fail
) -> tuple[str, np.ndarray, int | None]:
    """Parses a line: category, points [P, 2] x y as fractions, and identity."""
    words = line.split()
    fits = words[0].isdecimal() and len(words[0]) <= 9
    if not fits or int(words[0]) >= len(categories):
        expected = f"the number of a class, 0 to {len(categories) - 1}"
        raise fail(field="", expected=expected, got=words[0])
    try:
        values = np.array([float(word) for word in words[1:]])
    except ValueError:
        raise fail(field="", expected="numbers", got=line) from None
    if len(values) == 4:
        raise fail(field="", expected="a polygon", got="a box")
    identity = None
    if len(values) % 2:
        if not words[-1].isdecimal() or len(words[-1]) > 9:
            expected = "pairs of x and y, and after them no more than an identity"
            raise fail(field="", expected=expected, got=words[-1])
        identity, values = int(words[-1]), values[:-1]
    if len(values) < 6:
        expected = "three points or more"
        raise fail(field="", expected=expected, got=f"{len(values)} numbers")
    if not (np.abs(values - 0.5) <= 0.5 + _BEYOND).all():  # NaN, too
        expected = "x and y as fractions of width and height, 0 to 1"
        raise fail(field="", expected=expected, got=line)
    name = categories[int(words[0])].name
    return name, values.clip(0, 1).reshape(-1, 2), identity
