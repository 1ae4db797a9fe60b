"""Converts labelme: a JSON file of polygons per frame; `group_id` is the identity."""

import base64
import binascii
import io
from functools import lru_cache, partial
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from data_pipeline.convert.foreign import (
    DetectedLayout,
    Foreign,
    ForeignLabel,
    ForeignTrack,
    ForeignVideo,
    convert,
    encode,
    is_point,
    plain_identity,
    union,
)
from data_pipeline.convert.json_layout import show
from data_pipeline.convert.source_folder import (
    SourceFolder,
    image_size,
)
from data_pipeline.errors import DataError, Fail, is_name
from data_pipeline.file_names import IMAGE_SUFFIXES, natural_order
from data_pipeline.images import open_image, turned, upright_size

LOOKED_FOR = "folders of JSON files with a list 'shapes' (labelme), one for each image"
_IDENTITY = ("group_id", "track_id")
_MAX_JSON = 2**27  # bytes; labelme may put the image into it


class _Objects(NamedTuple):
    """Objects of a video."""

    tracks: list[ForeignTrack]
    labels: list[ForeignLabel]  # without an identity


def find(source: SourceFolder) -> DetectedLayout | None:
    """Recognises JSON files with shapes, in the folder or in folders of it."""
    places = [place for place in source.candidates("{split}", "") if place.is_dir()]
    for place in places:
        folders = [place, *source.folders(place)]
        videos = [folder for folder in folders if _is_labelme(source, folder)]
        if videos:
            first = source.files(videos[0], ".json")[0]
            why = f"{show(source, first)} has a list 'shapes'"
            return DetectedLayout("labelme", why, partial(_read, source, videos))
    return None


def _is_labelme(source: SourceFolder, folder: Path) -> bool:
    files = source.files(folder, ".json")
    if not files or files[0].stat().st_size > _MAX_JSON:
        return False
    content = source.json(files[0])
    return isinstance(content.get("shapes"), list) and "imagePath" in content


def _read(source: SourceFolder, folders: list[Path]) -> Foreign:
    videos, files, left_out = [], [], 0
    for folder in folders:
        pairs = [(_image(source, f), f) for f in source.files(folder, ".json")]
        pairs.sort(key=lambda pair: natural_order(pair[0]))
        images, jsons = (list(part) for part in zip(*pairs, strict=True))
        inside = folder != source.root
        name = show(source, folder) if inside else source.root.resolve().name
        videos.append(ForeignVideo(name, tuple(images), image_size(images[0])))
        files.append(jsons)
        left_out += len(set(source.files(folder, *IMAGE_SUFFIXES)) - set(images))
    notes = (f"{left_out} images without a JSON file",) if left_out else ()

    @lru_cache(maxsize=1)  # asked for twice in a row
    def objects(index: int) -> _Objects:
        return _objects(source, files[index], videos[index])

    return Foreign(
        tuple(videos),
        lambda index: objects(index).tracks,
        None,
        lambda: notes,
        lambda index: objects(index).labels,
        identity="group_id",
    )


def _image(source: SourceFolder, file: Path) -> Path:
    """Finds the image of a JSON file: at `imagePath`, or beside the file."""
    name = source.json(file, _MAX_JSON).get("imagePath", "nothing")
    if not isinstance(name, str) or not name or "\0" in name:
        raise DataError(file, field="imagePath", expected="a file name", got=name)
    name = name.replace("\\", "/")
    for path in (file.parent / PurePosixPath(name).name, file.parent / name):
        if source.inside(path).is_file():
            return path
    raise DataError(file, field="imagePath", expected="an image", got=name)


def _objects(source: SourceFolder, files: list[Path], video: ForeignVideo) -> _Objects:
    """Reads the objects of a video in order of appearance."""
    masks: dict[tuple[str, object], list[dict | None]] = {}
    alone: dict[str, list[ForeignLabel]] = {}  # without a group, by label
    for frame, file in enumerate(files):
        content = source.json(file, _MAX_JSON)
        fail = partial(DataError, file, video=video.name)
        for key, axis in (("imageHeight", 0), ("imageWidth", 1)):
            if content.get(key, video.size[axis]) != video.size[axis]:
                expected = f"{video.size[axis]}, as the first image of the video"
                raise fail(field=key, expected=expected, got=content[key])
        for (label, group), found in _shapes(content, video.size, fail).items():
            if group is None:
                labels = [ForeignLabel(label, False, frame, mask) for mask in found]
                alone.setdefault(label, []).extend(labels)
            mask = found[0] if group is None else union(found)
            masks.setdefault((label, group), [None] * len(files))[frame] = mask
    _check_labels(masks, files[0], video)
    # A label that occurs several times in a frame does not identify an object.
    several = {
        label: found
        for label, found in alone.items()
        if len({one.frame for one in found}) < len(found)
    }
    tracks = [
        ForeignTrack(label, False, masks[label, group])
        for label, group in masks
        if group is not None or label not in several
    ]
    return _Objects(tracks, [one for found in several.values() for one in found])


def _check_labels(masks: dict, file: Path, video: ForeignVideo) -> None:
    """Checks that each identity has one label."""
    labels: dict[object, str] = {}
    for label, group in masks:
        if group is not None and labels.setdefault(group, label) != label:
            expected = f"one label for group {group} in all frames of the video"
            got = f"{labels[group]!r} and {label!r}"
            fail = partial(DataError, file.parent, video=video.name)
            raise fail(field="label", expected=expected, got=got)


def _shapes(content: dict, size: tuple[int, int], fail: Fail) -> dict:
    """Reads the masks of a frame by label and group; the group may be None."""
    shapes = content.get("shapes", "nothing")
    if not isinstance(shapes, list):
        raise fail(field="shapes", expected="a list", got=shapes)
    parts: dict[tuple[str, object], list[dict]] = {}
    for k, shape in enumerate(shapes):
        if not isinstance(shape, dict):
            raise fail(field=f"shapes[{k}]", expected="an object", got=shape)
        label, group = shape.get("label", "nothing"), _identity(shape, k, fail)
        if not is_name(label):
            expected = "a name on one line"
            raise fail(field=f"shapes[{k}].label", expected=expected, got=label)
        mask = _mask(shape, size, partial(_at, fail, k))
        if mask is not None:
            parts.setdefault((label, group), []).append(mask)
    return parts


def _identity(shape: dict, k: int, fail: Fail) -> str | None:
    """Returns the identity of a shape; tools for videos may call it track_id."""
    found: str | None = None
    for key in _IDENTITY:
        value = shape.get(key)
        if value is None:
            continue
        here = partial(fail, field=f"shapes[{k}].{key}", got=value)
        if type(value) not in (int, str) or value == "":
            raise here(expected="the number of the object, or null")
        text = plain_identity(value)
        if found not in (None, text):
            raise here(expected=f"{found}, as in group_id")
        found = text
    return found


def _at(fail: Fail, k: int, *, field: str, expected: str, got: object) -> DataError:
    return fail(field=f"shapes[{k}].{field}", expected=expected, got=got)


def _mask(shape: dict, size: tuple[int, int], fail: Fail) -> dict | None:
    kind = shape.get("shape_type", "polygon")
    points = shape.get("points", "nothing")
    if not isinstance(points, list) or not all(is_point(point) for point in points):
        raise fail(field="points", expected="a list of [x, y]", got=points)
    if kind == "mask" and len(points) != 2:
        raise fail(field="points", expected="two corners", got=f"{len(points)} points")
    if kind == "polygon" or (kind == "rotation" and len(points) == 4):
        return convert([[value for point in points for value in point]], size, fail)
    if kind == "rectangle":
        x1, y1, x2, y2 = _corners(points, fail)
        return convert([[x1, y1, x2, y1, x2, y2, x1, y2]], size, fail)
    if kind == "mask":
        return _drawn(shape.get("mask", "nothing"), points, size, fail)
    expected = "polygon, rectangle, rotation of four points, or mask"
    raise fail(field="shape_type", expected=expected, got=kind)


def _corners(points: list, fail: Fail) -> tuple[float, float, float, float]:
    """Returns x1, y1, x2, y2 of a rectangle given by two or four corners."""
    (x1, x2), (y1, y2) = (
        (min(values, default=0), max(values, default=0))
        for values in ([x for x, _ in points], [y for _, y in points])
    )
    four = sorted([x, y] for x in (x1, x2) for y in (y1, y2))
    if len(points) != 2 and sorted(points) != four:
        expected = "two corners, or the four of a box with level sides"
        raise fail(field="points", expected=expected, got=points)
    return x1, y1, x2, y2


def _drawn(
    text: object, points: list, size: tuple[int, int], fail: Fail
) -> dict | None:
    """Decodes a PNG mask within a box with inclusive integer corners."""
    (left, top), (right, bottom) = ((int(x), int(y)) for x, y in points)
    box = bottom - top + 1, right - left + 1
    if min(left, top, *box) < 0 or bottom >= size[0] or right >= size[1]:
        expected = f"a box in the frame of height, width {size}"
        raise fail(field="points", expected=expected, got=points)
    try:
        data = base64.b64decode(str(text), validate=True)
    except binascii.Error as error:
        raise fail(field="mask", expected="a PNG in base64", got=str(error)) from error
    at_mask = partial(fail, field="mask")
    with open_image(io.BytesIO(data), at_mask) as image:
        if upright_size(image) != box:
            got = upright_size(image)
            raise at_mask(expected=f"a PNG of size {box}", got=got)
        pixels = np.asarray(turned(image, at_mask).convert("L")) > 0
    whole = np.zeros(size, bool)
    whole[top : bottom + 1, left : right + 1] = pixels
    return encode(whole)
