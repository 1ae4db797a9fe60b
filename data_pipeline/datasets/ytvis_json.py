"""Reads and validates annotation files in YouTube-VIS format.

YouTube-VIS 2019, 2021, 2022 and OVIS share it: an annotation is a track, with one entry
per frame in `segmentations`, null where the object is not visible.
"""

import json
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data_pipeline.datasets.dataset import Category, Video
from data_pipeline.datasets.ytvis_masks import MaskTable
from data_pipeline.errors import DataError, Fail, Report, attempt, is_name, stop
from data_pipeline.images import MAX_SIDE
from vis_jax.formats.occlusion import OCCLUSION
from vis_jax.formats.rle import MAX_PIXELS, Runs

MAX_FRAMES = 100_000


class AnnotatedTrack(NamedTuple):
    """One annotation of a video of T frames."""

    label: int
    crowd: bool
    mask_index: np.ndarray  # int32 [T], index into the masks; -1 where not visible
    occlusion: np.ndarray  # float32 [T], occluded fraction; NaN = unknown
    entry: int  # index in the file's list of annotations


class Annotations(NamedTuple):
    """Content of an annotation file."""

    categories: tuple[Category, ...]  # by id
    videos: tuple[Video, ...]  # as in the file
    tracks: tuple[
        tuple[AnnotatedTrack, ...], ...
    ]  # tracks of each video, in file order
    runs: Runs  # the masks of all tracks


def read_annotations(file: str | Path) -> Annotations:
    """Reads an annotation file and checks every field that is used.

    `annotations` may be missing or null, as in the files of validation and test sets:
    then no video has tracks.

    Raises:
      DataError: names the file, video, annotation and field.
    """
    return parse_annotations(read_json(file), file, stop)


def parse_annotations(
    content: dict, file: str | Path, report: Report = stop
) -> Annotations:
    """Validates the content of an annotation file, as `read_annotations` does.

    Args:
      content: from `read_json`.
      file: its source, for messages.
      report: receives each defect. If it returns, the defective video, track or mask is
        dropped, and an unsafe file name replaced by "". Entries that depend on a
        dropped video or category are not checked.
    """
    fail = partial(DataError, file)
    categories = _read_categories(
        _list(content, "categories", fail, report), fail, report
    )
    videos = _read_videos(_list(content, "videos", fail, report), fail, report)
    kept = [video for _, video in videos if video is not None]
    labels = {category.category_id: k for k, category in enumerate(categories)}
    # Tracks belong to the first of several videos with the same id.
    by_id = {number: video for number, video in reversed(videos)}
    places = {video.video_id: k for k, video in reversed(list(enumerate(kept)))}
    tracks: list[list[AnnotatedTrack]] = [[] for _ in kept]
    masks = MaskTable()
    seen: set[int] = set()
    without_truth = content.get("annotations") is None
    entries = [] if without_truth else _list(content, "annotations", fail, report)
    for k, entry in enumerate(entries):
        _read_id(entry, f"annotations[{k}]", seen, fail, report)
        if not isinstance(entry, dict):
            continue
        here = partial(fail, annotation=annotation_title(entry, k))
        video_id = attempt(report, _known, entry, "video_id", by_id, here)
        category_id = attempt(report, _known, entry, "category_id", labels, here)
        video = None if video_id is None else by_id[video_id]
        if video is None:
            continue
        label = None if category_id is None else labels[category_id]
        here = partial(here, video=video_title(video))
        track = _read_track(entry, (k, label), video, masks, here, report)
        if track is not None:
            tracks[places[video.video_id]].append(track)
    return Annotations(
        categories, tuple(kept), tuple(tuple(some) for some in tracks), masks.runs()
    )


def read_json(file: str | Path) -> dict:
    """Reads a JSON file whose top level is an object.

    Raises:
      DataError: missing, not JSON (with the position), or not an object.
    """
    content = read_any_json(file)
    if not isinstance(content, dict):
        got = f"a {type(content).__name__}"
        raise DataError(file, field="top level", expected="a JSON object", got=got)
    return content


def read_any_json(file: str | Path) -> object:
    """Reads a JSON file.

    Raises:
      DataError: missing, or not JSON (with the position).
    """
    path = Path(file)
    if path.exists() and not (path.is_file() or path.is_dir()):  # may be endless
        raise DataError(file, expected="a regular file", got="something else")
    try:
        return json.loads(path.read_bytes())
    except json.JSONDecodeError as error:
        place = f"line {error.lineno} column {error.colno} (character {error.pos})"
        if error.pos >= len(error.doc.rstrip()) or "Unterminated" in error.msg:
            place += ", where the file is cut off"
        raise DataError(file, expected="JSON", got=f"{error.msg}: {place}") from error
    except UnicodeDecodeError as error:
        got = f"a byte that is not UTF-8 at position {error.start}"
        raise DataError(file, expected="JSON", got=got) from error
    except RecursionError as error:
        raise DataError(file, expected="JSON", got="too many nested lists") from error
    except ValueError as error:  # a number with thousands of digits
        raise DataError(file, expected="JSON", got=str(error)) from error
    except OSError as error:
        raise DataError(file, expected="a readable file", got=str(error)) from error


def _list(content: dict, key: str, fail: Fail, report: Report) -> list:
    """Returns the list under a key; empty if missing."""
    value = content.get(key)
    if isinstance(value, list):
        return value
    report(fail(field=key, expected="a list", got=content.get(key, "nothing")))
    return []


def _integer(entry: dict, key: str, low: int, high: int, fail: Fail) -> int:
    value = entry.get(key, "nothing")
    if type(value) is not int or not low <= value <= high:
        raise fail(field=key, expected=f"a whole number, {low} to {high}", got=value)
    return value


def _read_id(
    entry: object, place: str, seen: set[int], fail: Fail, report: Report
) -> int | None:
    """Returns the id of an entry; None if it is invalid."""
    if not isinstance(entry, dict):
        report(fail(field=place, expected="an object", got=entry))
        return None
    number = entry.get("id", "nothing")
    if type(number) is not int:
        report(fail(field=f"{place}.id", expected="a whole number", got=number))
        return None
    if number in seen:
        report(fail(field=f"{place}.id", expected="an id used once", got=number))
    seen.add(number)
    return number


def _known(entry: dict, key: str, known: dict, fail: Fail) -> int:
    value = entry.get(key, "nothing")
    if type(value) is not int or value not in known:
        of = {"video_id": "videos", "category_id": "categories"}[key]
        raise fail(field=key, expected=f"an id that {of!r} lists", got=value)
    return value


def annotation_title(entry: dict, place: int) -> int | str:
    """Names an annotation in messages: by its id, or else its index."""
    number = entry.get("id")
    return number if type(number) is int else f"[{place}]"


def video_title(video: Video) -> str:
    """Names a video in messages: by its id and name."""
    return f"{video.video_id} ({video.name})"


def _read_categories(entries: list, fail: Fail, report: Report) -> tuple[Category, ...]:
    seen: set[int] = set()
    categories: dict[int, Category] = {}
    for k, entry in enumerate(entries):
        number = _read_id(entry, f"categories[{k}]", seen, fail, report)
        if not isinstance(entry, dict):
            continue
        name = entry.get("name", "nothing")
        if "name" not in entry or not is_name(name):
            place, expected = f"categories[{k}].name", "a name on one line"
            report(fail(field=place, expected=expected, got=name))
            name = f"[{k}]"
        if number is not None:
            categories.setdefault(number, Category(number, name))
    if not entries:
        report(fail(field="categories", expected="at least one", got="an empty list"))
    return tuple(sorted(categories.values()))


def _read_videos(
    entries: list, fail: Fail, report: Report
) -> list[tuple[int, Video | None]]:
    """Returns ids and videos in file order; None for a defective video."""
    if not entries:
        report(fail(field="videos", expected="at least one", got="an empty list"))
    seen: set[int] = set()
    videos = []
    for k, entry in enumerate(entries):
        number = _read_id(entry, f"videos[{k}]", seen, fail, report)
        if isinstance(entry, dict):
            here = partial(fail, video=f"[{k}]" if number is None else number)
            video = _read_video(entry, number, here, report)
            if number is not None:
                videos.append((number, video))
    return videos


def _read_video(
    entry: dict, number: int | None, fail: Fail, report: Report
) -> Video | None:
    height = attempt(report, _integer, entry, "height", 1, MAX_SIDE, fail)
    width = attempt(report, _integer, entry, "width", 1, MAX_SIDE, fail)
    if height is not None and width is not None and height * width > MAX_PIXELS:
        expected = f"at most {MAX_PIXELS} pixels a frame"
        got = (height, width)
        report(fail(field="height, width", expected=expected, got=got))
        height = None
    names = attempt(report, _read_names, entry, fail, report)
    if number is None or height is None or width is None or names is None:
        return None
    title = entry.get("name")
    if not isinstance(title, str) or not title:
        title = names[0].rpartition("/")[0] or str(number)
    return Video(number, title, height, width, len(names), tuple(names))


def _read_names(entry: dict, fail: Fail, report: Report) -> list[str]:
    """Returns the file names, with "" for names that lead out of the folder."""
    names = entry.get("file_names", "nothing")
    if not isinstance(names, list):
        raise fail(field="file_names", expected="a list", got=names)
    if not 1 <= len(names) <= MAX_FRAMES:
        expected = f"1 to {MAX_FRAMES} frames"
        raise fail(field="file_names", expected=expected, got=len(names))
    if entry.get("length", len(names)) != len(names):
        expected = f"the number of file_names, {len(names)}"
        report(fail(field="length", expected=expected, got=entry["length"]))
    # Windows separates folders by a backslash.
    names = [n.replace("\\", "/") if isinstance(n, str) else n for n in names]
    safe = [isinstance(name, str) and stays_inside(name) for name in names]
    for frame in (k for k, fine in enumerate(safe) if not fine):
        expected = "a path inside the image folder, such as 'video/00000.jpg'"
        report(fail(field=f"file_names[{frame}]", expected=expected, got=names[frame]))
    return [name if fine else "" for name, fine in zip(names, safe, strict=True)]


def stays_inside(name: str) -> bool:
    """Returns whether a file name with "/" separators stays in its folder."""
    parts = name.split("/")
    odd = any(sign in name for sign in ("\\", "\0", ":"))
    return not odd and all(part not in ("", ".", "..") for part in parts)


def _read_track(
    entry: dict,
    place: tuple[int, int | None],
    video: Video,
    masks: MaskTable,
    fail: Fail,
    report: Report,
) -> AnnotatedTrack | None:
    """Reads a track; `place` is its index and label. None if unusable."""
    extents = {"height": video.height, "width": video.width, "length": video.length}
    for key, value in extents.items():
        if entry.get(key, value) != value:
            report(fail(field=key, expected=f"{value}, as the video", got=entry[key]))
    crowd = entry.get("iscrowd", 0)
    if type(crowd) not in (int, bool) or crowd not in (0, 1):
        report(fail(field="iscrowd", expected="0 or 1", got=crowd))
        crowd = 0
    segmentations = _per_frame(entry, "segmentations", video.length, fail, report)
    _check_numbers(entry, video.length, fail, report)
    occlusion = _read_occlusion(entry, video.length, fail, report)
    size = dict(height=video.height, width=video.width)
    index = masks.add(segmentations, **size, fail=fail, report=report)
    number, label = place
    if label is None or len(index) != video.length:
        return None
    return AnnotatedTrack(label, bool(crowd), index, occlusion, number)


def _per_frame(entry: dict, key: str, length: int, fail: Fail, report: Report) -> list:
    """Returns a per-frame list, even if its length is wrong."""
    values = _list(entry, key, fail, report)
    if isinstance(entry.get(key), list) and len(values) != length:
        expected = f"one entry for each of {length} frames"
        report(fail(field=key, expected=expected, got=f"{len(values)} entries"))
    return values


def _check_numbers(entry: dict, length: int, fail: Fail, report: Report) -> None:
    """Checks boxes and areas for validity only, as they are computed from the masks."""
    kinds = (
        ("bboxes", is_box, "[x, y, width, height] or null"),
        ("areas", is_number, "a number or null"),
    )
    for key, sound, expected in kinds:
        if entry.get(key) is None:
            continue
        for frame, value in enumerate(_per_frame(entry, key, length, fail, report)):
            if value is not None and not sound(value):
                report(fail(field=f"{key}[{frame}]", expected=expected, got=value))


def is_box(value: object) -> bool:
    """Returns whether a value is a list of four numbers."""
    return isinstance(value, list) and len(value) == 4 and all(map(is_number, value))


def is_number(value: object) -> bool:
    """Returns whether a value is a number in the range of pixel sums."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) < 1e12


def _read_occlusion(entry: dict, length: int, fail: Fail, report: Report) -> np.ndarray:
    shares = np.full(length, np.nan, np.float32)
    if entry.get("occlusion") is None:
        return shares
    levels = _per_frame(entry, "occlusion", length, fail, report)
    for frame, level in enumerate(levels):
        if level is None:
            continue
        if not isinstance(level, str) or level not in OCCLUSION:
            expected = f"null or one of {sorted(OCCLUSION)}"
            report(fail(field=f"occlusion[{frame}]", expected=expected, got=level))
        elif frame < length:
            shares[frame] = OCCLUSION[level]
    return shares
