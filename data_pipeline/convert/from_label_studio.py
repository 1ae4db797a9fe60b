"""Converts Label Studio: a JSON file of image tasks with brushes and polygons."""

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

import numpy as np

from data_pipeline.convert.foreign import (
    DetectedLayout,
    Foreign,
    ForeignLabel,
    ForeignVideo,
    convert,
    encode,
    is_point,
)
from data_pipeline.convert.frame_names import group_frames
from data_pipeline.convert.json_layout import show
from data_pipeline.convert.source_folder import (
    MAX_JSON,
    SourceFolder,
    check_size,
    image_size,
    walk_images,
)
from data_pipeline.datasets.ytvis_json import read_any_json
from data_pipeline.errors import DataError, Fail, is_name
from data_pipeline.file_names import IMAGE_SUFFIXES

LOOKED_FOR = "a JSON file with a list of tasks that have 'annotations' (Label Studio)"
_MAX_FILES = 20  # maximum number of JSON files examined
_MAX_BYTES = 2**24  # maximum bytes of a brush
_SHAPES = ("brush", "brushlabels", "polygon", "polygonlabels", "labels")
# Results that do not locate an object.
_OTHERS = (
    "choices",
    "textarea",
    "rating",
    "number",
    "relation",
    "datetime",
    "taxonomy",
)


def find(source: SourceFolder) -> DetectedLayout | None:
    """Recognises a list of tasks in a JSON file of the folder.

    Raises:
      DataError: an image of a task is missing or ambiguous.
    """
    for place in source.candidates("{split}", ""):
        for file in source.files(place, ".json")[:_MAX_FILES]:
            check_size(source.inside(file), MAX_JSON)
            tasks = read_any_json(file)
            if isinstance(tasks, list) and tasks and _is_task(tasks[0]):
                why = f"{show(source, file)} has a list of tasks"
                made = partial(_read, source, place, file, tasks)
                return DetectedLayout("label_studio", why, made)
    return None


def _is_task(task: object) -> bool:
    keys = ("data", "annotations")
    return isinstance(task, dict) and all(key in task for key in keys)


def _read(source: SourceFolder, place: Path, file: Path, tasks: Sequence) -> Foreign:
    images: dict[str, list[Path]] = {}
    for image in walk_images(source, place):
        images.setdefault(image.name, []).append(image)
    results: dict[Path, tuple[list, Fail]] = {}
    without = 0
    for k, task in enumerate(tasks):
        fail = partial(DataError, file)
        if not _is_task(task):
            expected = "a task with data and annotations"
            raise fail(field=f"[{k}]", expected=expected, got=task)
        here = partial(fail, annotation=f"of task {task.get('id', k)}")
        result = _result(task["annotations"], here)
        image = _image(task["data"], images, here)
        if image in results:
            raise here(field="data", expected="an image of one task", got=image.name)
        if result is None:
            without += 1
        else:
            results[image] = result, here
    groups = group_frames(results, place)
    videos = [
        ForeignVideo(name, tuple(files), image_size(files[0]))
        for name, files in groups.items()
    ]
    notes = (f"{without} tasks without an annotation",) if without else ()

    def labels(index: int) -> list[ForeignLabel]:
        video = videos[index]
        return [
            label
            for frame, image in enumerate(video.files)
            for label in _labels(*results[image], frame, video)
        ]

    return Foreign(tuple(videos), lambda index: (), None, lambda: notes, labels)


def _result(annotations: object, fail: Fail) -> list | None:
    """Returns the regions of the only annotation not cancelled, or None."""
    if not isinstance(annotations, list):
        raise fail(field="annotations", expected="a list", got=annotations)
    kept = [
        one
        for one in annotations
        if isinstance(one, dict) and not one.get("was_cancelled")
    ]
    if len(kept) > 1:
        expected = "one that is not cancelled"
        raise fail(field="annotations", expected=expected, got=len(kept))
    result = kept[0].get("result") if kept else None
    if kept and not isinstance(result, list):
        raise fail(field="result", expected="a list", got=result)
    return result


def _image(data: object, images: dict[str, list[Path]], fail: Fail) -> Path:
    """Finds the image of a task by file name, as paths refer to a server."""
    texts = list(data.values()) if isinstance(data, dict) else []
    names = [
        PurePosixPath(unquote(text).replace("\\", "/").replace("?d=", "/")).name
        for text in texts
        if isinstance(text, str)
    ]
    names = [n for n in names if PurePosixPath(n).suffix.lower() in IMAGE_SUFFIXES]
    if len(names) != 1:
        expected = "one field with the path of an image (videos have boxes only)"
        raise fail(field="data", expected=expected, got=data)
    # Uploads get a prefix of eight letters and digits.
    short = re.sub(r"^[0-9a-f]{8}-", "", names[0])
    found = images.get(names[0]) or images.get(short) or []
    if len(found) != 1:
        expected = "one image of this name in the folder"
        raise fail(field="data", expected=expected, got=f"{len(found)} of {names[0]}")
    return found[0]


def _labels(
    result: list, fail: Fail, frame: int, video: ForeignVideo
) -> list[ForeignLabel]:
    """Reads the regions of an image.

    Shape and label of a region may be two entries with the same id.
    """
    regions: dict[object, dict] = {}
    for k, entry in enumerate(result):
        if not isinstance(entry, dict) or not isinstance(
            entry.get("value"), dict | None
        ):
            raise fail(field=f"result[{k}]", expected="an object", got=entry)
        kind = str(entry.get("type", "nothing")).lower()
        if kind in _OTHERS:
            continue
        if kind not in _SHAPES:
            expected = "brushes and polygons: of a box, the mask is not known"
            raise fail(field=f"result[{k}].type", expected=expected, got=kind)
        number = entry.get("id")
        key = number if isinstance(number, str) else k
        value = entry.get("value") or {}
        regions[key] = {**regions.get(key, {}), **value, "entry": entry}
    found = []
    for region, value in regions.items():
        here = partial(_at, fail, region)
        name = _name(value, here)
        mask = _mask(value, video.size, here)
        if mask is not None:
            found.append(ForeignLabel(name, False, frame, mask))
    return found


def _at(
    fail: Fail, key: object, *, field: str, expected: str, got: object
) -> DataError:
    return fail(field=f"region {key}, {field}", expected=expected, got=got)


def _name(value: dict, fail: Fail) -> str:
    keys = [k for k in ("brushlabels", "polygonlabels", "labels") if value.get(k)]
    names = value[keys[0]] if keys else []
    if not isinstance(names, list) or len(names) != 1 or not is_name(names[0]):
        raise fail(field="labels", expected="one label on one line", got=names)
    return names[0]


def _mask(value: dict, size: tuple[int, int], fail: Fail) -> dict | None:
    entry = value["entry"]
    turn = entry.get("image_rotation", 0)
    if turn not in (0, None):
        expected = "0, the image as it is"
        raise fail(field="image_rotation", expected=expected, got=turn)
    stated = entry.get("original_height"), entry.get("original_width")
    if stated != size:
        expected = f"height and width of the image, {size}"
        raise fail(field="original_height, _width", expected=expected, got=stated)
    if "rle" in value:
        if value.get("format", "rle") != "rle":
            raise fail(field="format", expected="rle", got=value["format"])
        return encode(decode_brush(value["rle"], size, partial(fail, field="rle")))
    points = value.get("points", "nothing")
    if not isinstance(points, list) or not all(is_point(point) for point in points):
        raise fail(field="points", expected="a list of [x, y] in percent", got=points)
    if value.get("closed", True) is not True:
        raise fail(field="closed", expected="true", got=value["closed"])
    scale = np.array(size[::-1]) / 100
    polygon = (np.array(points, float).reshape(-1, 2) * scale).ravel().tolist()
    return convert([polygon], size, fail)


def decode_brush(codes: object, size: tuple[int, int], fail: Fail) -> np.ndarray:
    """Decodes a brush to bool [H, W]: where its RGBA image is not transparent.

    Bit format of @thi.ng/rle-pack: 32 bits number of values; 5 bits word size - 1; four
    times 4 bits run-length size - 1; then runs: 1 bit (1: one repeated value), 2 bits
    selecting a run-length size, the length - 1, and the value or values.

    Args:
      codes: integers from 0 to 255.
      size: height and width.
      fail: makes the error from `expected` and `got`.

    Raises:
      DataError: invalid code, or a wrong number of values.
    """
    if (
        not isinstance(codes, list)
        or len(codes) > _MAX_BYTES
        or not all(type(code) is int and 0 <= code < 256 for code in codes)
    ):
        expected = f"at most {_MAX_BYTES} whole numbers from 0 to 255"
        raise fail(expected=expected, got=codes)
    bits = "".join(f"{code:08b}" for code in codes)
    total = 4 * size[0] * size[1]
    number, word = int(bits[:32] or "0", 2), int(bits[32:37] or "0", 2) + 1
    if number != total or word != 8 or len(bits) < 53:
        expected = f"{total} values of 8 bits, four for each pixel"
        raise fail(expected=expected, got=f"{number} of {word} bits")
    sizes = [int(bits[k : k + 4], 2) + 1 for k in range(37, 53, 4)]
    values = np.zeros(total, np.uint8)
    place, at = 53, 0
    while at < total:
        repeated, bit = bits[place : place + 1] == "1", place + 3
        wide = sizes[int(bits[place + 1 : bit] or "0", 2)]
        length = int(bits[bit : bit + wide] or "0", 2) + 1
        place = bit + wide + 8 * (1 if repeated else length)
        if place > len(bits) or at + length > total:
            raise fail(
                expected=f"run lengths of {total} values", got=f"{at} whole ones"
            )
        if repeated:
            values[at : at + length] = int(bits[place - 8 : place], 2)
        else:
            words = range(bit + wide, place, 8)
            values[at : at + length] = [int(bits[k : k + 8], 2) for k in words]
        at += length
    return values.reshape(*size, 4)[..., 3] > 0
