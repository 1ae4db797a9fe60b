"""Reads and validates ground-truth files in YouTube-VIS and OVIS format."""

import os
from collections import Counter
from typing import TypeGuard

import numpy as np

from vis_jax.formats.json_checks import (
    Checker,
    FormatError,
    Missing,
    is_finite,
    is_integer,
    plain_id,
)
from vis_jax.formats.occlusion import OCCLUSION, occlusion_score
from vis_jax.formats.rle import RleError
from vis_jax.formats.rle_check import check_masks
from vis_jax.formats.tracks import Id, TruthFile, TruthTrack, TruthVideo, mean_nonzero
from vis_jax.formats.unpack import read_json


def load_truth(path: str | os.PathLike, *, official_quirks: bool = True) -> TruthFile:
    """Reads a ground-truth file.

    Args:
      path: instances.json.
      official_quirks: accept (and count) defects the official tool accepts, such as
        lists and sizes that disagree with the video, id 0, ids that are text.

    Raises:
      FormatError: one line with file, position, field, expected and actual value.
    """
    content = read_json(path)
    return parse_truth(content, name=str(path), official_quirks=official_quirks)


def load_videos(path: str | os.PathLike) -> TruthFile:
    """Reads videos and categories, but no tracks; annotations are optional.

    Raises:
      FormatError: as `load_truth`.
    """
    checker = Checker(str(path), True, Counter())
    content = checker.record(read_json(path), "top level")
    videos, categories = _videos(content, checker), _categories(content, checker)
    return TruthFile(str(path), videos, categories, [], checker.tolerated)


def parse_truth(
    content: object, *, name: str = "truth", official_quirks: bool = True
) -> TruthFile:
    """Like `load_truth`, from parsed JSON, which is not modified."""
    checker = Checker(name, not official_quirks, Counter())
    content = checker.record(content, "top level")
    videos = _videos(content, checker)
    categories = _categories(content, checker)
    if content.get("annotations") is None:
        checker.fail("annotations", "a list (this file has no ground truth)", None)
    tracks, seen = [], set()
    for index, entry in enumerate(checker.items(content, "annotations", "top level")):
        track = _track(entry, index, videos, checker)
        if track.track_id == 0:
            checker.tolerate("truth: id 0", f"annotations[{index}]: id", ">= 1", 0)
        if track.track_id in seen:
            where = f"annotations[{index}]: id"
            if track.video_id not in videos:  # it would replace the earlier track
                expected = "a new id for a track without a video"
                checker.fail(where, expected, track.track_id)
            checker.tolerate("truth: duplicate id", where, "a new id", track.track_id)
        if track.category_id not in categories:
            where = f"annotation {track.track_id}: category_id"
            known = "one of `categories`"
            checker.tolerate("truth: category unknown", where, known, track.category_id)
        seen.add(track.track_id)
        tracks.append(track)
    return TruthFile(name, videos, categories, tracks, checker.tolerated)


def _videos(content: dict, checker: Checker) -> dict[Id, TruthVideo]:
    videos: dict[Id, TruthVideo] = {}
    for index, entry in enumerate(checker.items(content, "videos", "top level")):
        where = f"videos[{index}]"
        entry = checker.record(entry, where)
        video_id = checker.identifier(entry, "id", where)
        height = checker.field(entry, "height", where)
        width = checker.field(entry, "width", where)
        size = checker.size([height, width], f"{where}: height, width")
        names = entry.get("file_names")
        if names is not None and not isinstance(names, list | tuple):
            kind = "truth: file names that are not a list"
            checker.tolerate(kind, f"{where}: file_names", "a list", names)
            names = None
        length = _length(entry, names, where, checker)
        if video_id in videos:
            kind = "truth: duplicate video"
            checker.tolerate(kind, f"{where}: id", "a new id", video_id)
        folder = os.path.dirname(str(names[0])) if names else ""
        name = str(entry.get("name") or folder or video_id)
        videos[video_id] = TruthVideo(video_id, name, *size, length)
    _check_order(videos, "videos", checker)
    return videos


def _length(
    entry: dict, names: list | tuple | None, where: str, checker: Checker
) -> int:
    """Returns the frames of a video; 0 if not given. The official tool ignores it."""
    length = entry.get("length")
    sound = is_integer(length) and length >= 1
    if not sound or (names and len(names) != length):
        expected = f"{len(names)} as file_names" if names else "an integer >= 1"
        got = entry.get("length", Missing())
        checker.tolerate("truth: length of a video", f"{where}: length", expected, got)
    if names:
        return len(names)
    return int(length) if is_integer(length) and length >= 1 else 0


def _check_order(ids: dict, what: str, checker: Checker) -> None:
    """Checks that ids are sorted."""
    if len({isinstance(key, str) for key in ids}) > 1:
        text = next(key for key in ids if isinstance(key, str))
        checker.fail(f"{what}: id", "only numbers or only text", text)


def _categories(content: dict, checker: Checker) -> dict[Id, str]:
    categories: dict[Id, str] = {}
    for index, entry in enumerate(checker.items(content, "categories", "top level")):
        where = f"categories[{index}]"
        entry = checker.record(entry, where)
        category_id = checker.identifier(entry, "id", where)
        if category_id in categories:
            kind = "truth: duplicate category"
            checker.tolerate(kind, f"{where}: id", "a new id", category_id)
        name = entry.get("name", Missing())
        if not isinstance(name, str):
            kind = "truth: name of a category"
            checker.tolerate(kind, f"{where}: name", "a string", name)
            name = str(category_id)
        categories[category_id] = name
    _check_order(categories, "categories", checker)
    return categories


def _track(
    entry: object, index: int, videos: dict[Id, TruthVideo], checker: Checker
) -> TruthTrack:
    entry = checker.record(entry, f"annotations[{index}]")
    track_id = checker.identifier(entry, "id", f"annotations[{index}]")
    if isinstance(track_id, str):
        checker.fail(f"annotations[{index}]: id", "an integer >= 0", track_id)
    where = f"annotation {track_id}"
    video_id = checker.reference(entry, "video_id", where)
    category_id = checker.reference(entry, "category_id", where)
    if video_id not in videos:
        known = "one of `videos`"
        checker.tolerate("truth: video unknown", f"{where}: video_id", known, video_id)
        nothing = np.zeros(0, np.int64)
        return TruthTrack(
            track_id, video_id, category_id, False, [], nothing, 0.0, None
        )
    video = videos[video_id]
    frames = checker.items(entry, "segmentations", where)
    given = checker.items(entry, "areas", where)
    for key, values in (("segmentations", frames), ("areas", given)):
        if video.length and len(values) != video.length:
            kind = "truth: list length differs from the video"
            expected = f"{video.length} entries"
            checker.tolerate(kind, f"{where}: {key}", expected, len(values))
    segmentations, areas = _segmentations(frames, where, video, checker)
    return TruthTrack(
        track_id=track_id,
        video_id=video_id,
        category_id=category_id,
        crowd=_crowd(entry, where, checker),
        segmentations=segmentations,
        areas=areas,
        mean_area=_mean_area(given, where, checker),
        occlusion=_occlusion(entry.get("occlusion"), where, len(frames), checker),
    )


def _crowd(entry: dict, where: str, checker: Checker) -> bool:
    crowd = checker.field(entry, "iscrowd", where)
    if crowd not in (0, 1):
        if not is_integer(crowd):
            checker.fail(f"{where}: iscrowd", "0 or 1", crowd)
        checker.tolerate("truth: iscrowd", f"{where}: iscrowd", "0 or 1", crowd)
    return bool(crowd)


def _mean_area(given: list, where: str, checker: Checker) -> float:
    for frame, area in enumerate(given):
        if area is None:
            continue
        if area and not is_finite(area):
            checker.fail(f"{where}: areas[{frame}]", "pixels or null", area)
        if not is_finite(area) or area < 0:
            here = f"{where}: areas[{frame}]"
            checker.tolerate("truth: areas", here, "pixels or null", area)
    return mean_nonzero(np.array([area for area in given if area]))


def _occlusion(
    levels: object, where: str, length: int, checker: Checker
) -> float | None:
    """Returns the occlusion of a track; None without a valid list: only OVIS has it."""
    if levels is None:
        return None
    kind, field = "truth: occlusion", f"{where}: occlusion"
    if not isinstance(levels, list) or len(levels) != length:
        got = len(levels) if isinstance(levels, list) else levels
        checker.tolerate(kind, field, f"a list of {length} entries", got)
        return None
    for frame, level in enumerate(levels):
        if level is not None and (not isinstance(level, str) or level not in OCCLUSION):
            expected = f"one of {', '.join(OCCLUSION)} or null"
            checker.tolerate(kind, f"{field}[{frame}]", expected, level)
            return None
    return occlusion_score(levels)


def _segmentations(
    frames: list, where: str, video: TruthVideo, checker: Checker
) -> tuple[list[dict | None], np.ndarray]:
    """Returns the compressed masks of a track and their areas, 0 where absent."""
    segmentations: list[dict | None] = []
    for t, entry in enumerate(frames):
        here = f"{where}: segmentations[{t}]"
        if entry is None:
            segmentations.append(None)
        elif not entry:
            kind = "truth: absent masks that are not null"
            checker.tolerate(kind, here, "polygons or null", entry)
            segmentations.append(None)
        elif isinstance(entry, list):
            segmentations.append(_polygons(entry, here, video, checker))
        else:
            segmentations.append(_run_lengths(entry, here, video, checker))
    areas = np.zeros(len(frames), np.int64)
    present = [t for t, entry in enumerate(segmentations) if entry is not None]
    try:
        areas[present], mended = check_masks(
            [m for m in segmentations if m is not None]
        )
    except RleError as error:
        place = f"{where}: segmentations[{present[error.index]}]: counts"
        raise FormatError(f"{checker.file}: {place}: {error}") from error
    if mended:
        checker.tolerated["truth: masks with empty runs"] += mended
    return segmentations, areas


def _polygons(parts: list, here: str, video: TruthVideo, checker: Checker) -> dict:
    # Drawing walks along every edge: far-off corners would take all memory.
    far = 2 * max(video.height, video.width)
    expected = "polygons x1 y1 x2 y2 x3 y3 .."
    for index, part in enumerate(parts):
        # pycocotools looks at the length of the first part only.
        if not isinstance(part, list | tuple) or len(part) < (2 if index else 5):
            checker.fail(here, expected, part)
        if not all(is_finite(value) and abs(value) <= far for value in part):
            checker.fail(here, f"coordinates within {far} pixels", part)
        if len(part) < 6 or len(part) % 2:
            checker.tolerate("truth: polygons", here, expected, part)
    from pycocotools import mask as coco_mask

    floats = [[float(value) for value in part] for part in parts]
    pieces = coco_mask.frPyObjects(floats, video.height, video.width)
    return coco_mask.merge(pieces)


def _run_lengths(entry: object, here: str, video: TruthVideo, checker: Checker) -> dict:
    entry = checker.record(entry, here)
    size, expected = checker.field(entry, "size", here), [video.height, video.width]
    if not is_size(size, expected):
        size = list(checker.size(size, f"{here}: size"))
        if size != expected:
            kind, text = "truth: mask size differs", f"{expected} as the video"
            checker.tolerate(kind, f"{here}: size", text, size)
    counts = checker.field(entry, "counts", here)
    if isinstance(counts, list):
        from pycocotools import mask as coco_mask

        counts = _checked_counts(counts, size, here, checker)
        raw = {"size": size, "counts": counts}
        counts = coco_mask.frPyObjects(raw, *size)["counts"]
    elif isinstance(counts, str) and counts.isascii():
        counts = counts.encode("ascii")
    elif not isinstance(counts, bytes):
        checker.fail(f"{here}: counts", "a list or an ASCII string", counts)
    return {"size": size, "counts": counts}


def is_size(size: object, expected: list[int]) -> TypeGuard[list[int]]:
    """Returns whether a size equals another as a list of ints; 10.0 and true do not."""
    if type(size) is not list or size != expected:
        return False
    return type(size[0]) is type(size[1]) is int


def _checked_counts(
    counts: list, size: list[int], here: str, checker: Checker
) -> list[int]:
    pixels = size[0] * size[1]
    expected = f"integers 0 .. {pixels}"
    plain = []
    for given in counts:
        count = plain_id(given)
        if not is_integer(count) or not 0 <= count <= pixels:
            checker.fail(f"{here}: counts", expected, given)
        plain.append(count)
    if not all(map(is_integer, counts)):
        checker.tolerate("truth: counts", f"{here}: counts", expected, counts)
    if sum(plain) != pixels:
        expected = f"counts that add up to {pixels}"
        checker.fail(f"{here}: counts", expected, int(sum(plain)))
    return plain
