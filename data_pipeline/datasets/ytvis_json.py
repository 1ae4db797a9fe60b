"""Reads and checks annotation files in the YouTube-VIS format.

YouTube-VIS 2019, 2021, 2022 and OVIS share it: one annotation is one track, with one
entry a frame in `segmentations`, null where the object is not seen.
"""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data_pipeline.datasets.dataset import Category, Video
from data_pipeline.datasets.ytvis_masks import MaskTable
from data_pipeline.errors import DataError
from data_pipeline.rle import Runs

MAX_SIDE = 16_384  # pixels
MAX_PIXELS = 2**26  # a frame of 8192 x 8192
MAX_FRAMES = 100_000

# Hidden share for the levels of OVIS: the weights of its evaluator.
OCCLUSION = {"no_occlusion": 0.0, "slight_occlusion": 0.25, "severe_occlusion": 0.75}

Fail = Callable[..., DataError]


class Track(NamedTuple):
    """One annotation of a video of T frames."""

    label: int
    crowd: bool
    mask_index: np.ndarray  # int32 [T], which of the masks; -1 where not seen
    occlusion: np.ndarray  # float32 [T], hidden share; NaN = unknown


class Annotations(NamedTuple):
    """What an annotation file holds."""

    categories: tuple[Category, ...]  # by id
    videos: tuple[Video, ...]  # as in the file
    tracks: tuple[tuple[Track, ...], ...]  # of each video, as in the file
    runs: Runs  # the masks of all tracks


def read_annotations(file: str | Path) -> Annotations:
    """Reads an annotation file and checks every field that is used.

    `annotations` may be missing or null, as in the files of validation and test sets:
    then no video has tracks.

    Raises:
      DataError: names the file, video, annotation and field.
    """
    content = read_json(file)
    fail = partial(DataError, file)
    categories = _read_categories(_list(content, "categories", fail), fail)
    videos = _read_videos(_list(content, "videos", fail), fail)
    labels = {category.category_id: k for k, category in enumerate(categories)}
    numbers = {video.video_id: k for k, video in enumerate(videos)}
    tracks: list[list[Track]] = [[] for _ in videos]
    masks = MaskTable()
    seen: set[int] = set()
    without_truth = content.get("annotations") is None
    entries = [] if without_truth else _list(content, "annotations", fail)
    for k, entry in enumerate(entries):
        number = _unique_id(entry, f"annotations[{k}]", seen, fail)
        here = partial(fail, annotation=number)
        video = _known(entry, "video_id", numbers, here)
        label = _known(entry, "category_id", labels, here)
        here = partial(here, video=_title(videos[video]))
        tracks[video].append(_read_track(entry, label, videos[video], masks, here))
    kept = tuple(tuple(some) for some in tracks)
    return Annotations(categories, videos, kept, masks.runs())


def read_json(file: str | Path) -> dict:
    """Reads a JSON file whose top level is an object.

    Raises:
      DataError: not there, not JSON (with the position), or not an object.
    """
    try:
        content = json.loads(Path(file).read_bytes())
    except json.JSONDecodeError as error:
        place = f"line {error.lineno} column {error.colno} (character {error.pos})"
        if error.pos >= len(error.doc.rstrip()) or "Unterminated" in error.msg:
            place += ", where the file is cut off"
        raise DataError(file, expected="JSON", got=f"{error.msg}: {place}") from error
    except UnicodeDecodeError as error:
        got = f"a byte that is no UTF-8 at position {error.start}"
        raise DataError(file, expected="JSON", got=got) from error
    except RecursionError as error:
        raise DataError(file, expected="JSON", got="too many nested lists") from error
    except ValueError as error:  # a number with thousands of digits
        raise DataError(file, expected="JSON", got=str(error)) from error
    except OSError as error:
        raise DataError(file, expected="a readable file", got=str(error)) from error
    if not isinstance(content, dict):
        got = f"a {type(content).__name__}"
        raise DataError(file, field="top level", expected="a JSON object", got=got)
    return content


def _list(content: dict, key: str, fail: Fail) -> list:
    if not isinstance(content.get(key), list):
        raise fail(field=key, expected="a list", got=content.get(key, "nothing"))
    return content[key]


def _integer(entry: dict, key: str, low: int, high: int, fail: Fail) -> int:
    value = entry.get(key, "nothing")
    if type(value) is not int or not low <= value <= high:
        raise fail(field=key, expected=f"a whole number, {low} to {high}", got=value)
    return value


def _unique_id(entry: object, place: str, seen: set[int], fail: Fail) -> int:
    if not isinstance(entry, dict):
        raise fail(field=place, expected="an object", got=entry)
    number = entry.get("id", "nothing")
    if type(number) is not int:
        raise fail(field=f"{place}.id", expected="a whole number", got=number)
    if number in seen:
        raise fail(field=f"{place}.id", expected="an id used once", got=number)
    seen.add(number)
    return number


def _known(entry: dict, key: str, known: dict[int, int], fail: Fail) -> int:
    value = entry.get(key, "nothing")
    if type(value) is not int or value not in known:
        of = {"video_id": "videos", "category_id": "categories"}[key]
        raise fail(field=key, expected=f"an id that {of!r} lists", got=value)
    return known[value]


def _title(video: Video) -> str:
    return f"{video.video_id} ({video.name})"


def _read_categories(entries: list, fail: Fail) -> tuple[Category, ...]:
    seen: set[int] = set()
    categories = []
    for k, entry in enumerate(entries):
        number = _unique_id(entry, f"categories[{k}]", seen, fail)
        name = entry.get("name")
        if not isinstance(name, str) or not name:
            field = f"categories[{k}].name"
            raise fail(field=field, expected="a name", got=entry.get("name", "nothing"))
        categories.append(Category(number, name))
    if not categories:
        raise fail(field="categories", expected="at least one", got="an empty list")
    return tuple(sorted(categories))


def _read_videos(entries: list, fail: Fail) -> tuple[Video, ...]:
    if not entries:
        raise fail(field="videos", expected="at least one", got="an empty list")
    seen: set[int] = set()
    videos = []
    for k, entry in enumerate(entries):
        number = _unique_id(entry, f"videos[{k}]", seen, fail)
        videos.append(_read_video(entry, number, partial(fail, video=number)))
    return tuple(videos)


def _read_video(entry: dict, number: int, fail: Fail) -> Video:
    height = _integer(entry, "height", 1, MAX_SIDE, fail)
    width = _integer(entry, "width", 1, MAX_SIDE, fail)
    if height * width > MAX_PIXELS:
        expected = f"at most {MAX_PIXELS} pixels a frame"
        raise fail(field="height, width", expected=expected, got=(height, width))
    names = _list(entry, "file_names", fail)
    if not 1 <= len(names) <= MAX_FRAMES:
        expected = f"1 to {MAX_FRAMES} frames"
        raise fail(field="file_names", expected=expected, got=len(names))
    if entry.get("length", len(names)) != len(names):
        expected = f"the number of file_names, {len(names)}"
        raise fail(field="length", expected=expected, got=entry["length"])
    for frame, name in enumerate(names):
        if not isinstance(name, str) or not _stays_inside(name):
            expected = "a path inside the image folder, such as 'video/00000.jpg'"
            raise fail(field=f"file_names[{frame}]", expected=expected, got=name)
    title = entry.get("name")
    if not isinstance(title, str) or not title:
        title = names[0].rpartition("/")[0] or str(number)
    return Video(number, title, height, width, len(names), tuple(names))


def _stays_inside(name: str) -> bool:
    parts = name.split("/")
    odd = any(sign in name for sign in ("\\", "\0", ":"))
    return not odd and all(part not in ("", ".", "..") for part in parts)


def _read_track(
    entry: dict, label: int, video: Video, masks: MaskTable, fail: Fail
) -> Track:
    extents = {"height": video.height, "width": video.width, "length": video.length}
    for key, value in extents.items():
        if entry.get(key, value) != value:
            raise fail(field=key, expected=f"{value}, as the video", got=entry[key])
    crowd = entry.get("iscrowd", 0)
    if type(crowd) not in (int, bool) or crowd not in (0, 1):
        raise fail(field="iscrowd", expected="0 or 1", got=crowd)
    segmentations = _per_frame(entry, "segmentations", video.length, fail)
    _check_numbers(entry, video.length, fail)
    occlusion = _read_occlusion(entry, video.length, fail)
    index = masks.add(segmentations, height=video.height, width=video.width, fail=fail)
    return Track(label, bool(crowd), index, occlusion)


def _per_frame(entry: dict, key: str, length: int, fail: Fail) -> list:
    values = _list(entry, key, fail)
    if len(values) != length:
        expected = f"one entry for each of {length} frames"
        raise fail(field=key, expected=expected, got=f"{len(values)} entries")
    return values


def _check_numbers(entry: dict, length: int, fail: Fail) -> None:
    """Boxes and areas are taken from the masks; what the file says must be sound."""
    if entry.get("bboxes") is not None:
        for frame, box in enumerate(_per_frame(entry, "bboxes", length, fail)):
            sound = isinstance(box, list) and len(box) == 4 and all(map(_number, box))
            if box is not None and not sound:
                field, expected = f"bboxes[{frame}]", "[x, y, width, height] or null"
                raise fail(field=field, expected=expected, got=box)
    if entry.get("areas") is not None:
        for frame, area in enumerate(_per_frame(entry, "areas", length, fail)):
            if area is not None and not _number(area):
                field = f"areas[{frame}]"
                raise fail(field=field, expected="a number or null", got=area)


def _number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) < 1e12


def _read_occlusion(entry: dict, length: int, fail: Fail) -> np.ndarray:
    shares = np.full(length, np.nan, np.float32)
    if entry.get("occlusion") is None:
        return shares
    for frame, level in enumerate(_per_frame(entry, "occlusion", length, fail)):
        if level is None:
            continue
        if not isinstance(level, str) or level not in OCCLUSION:
            expected = f"null or one of {sorted(OCCLUSION)}"
            raise fail(field=f"occlusion[{frame}]", expected=expected, got=level)
        shares[frame] = OCCLUSION[level]
    return shares
