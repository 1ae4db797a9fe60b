"""Truth files in the style of YouTube-VIS and OVIS: read, checked, compressed."""

import os
from collections import Counter

import numpy as np

from vis_jax.metrics.json_checks import (
    Checker,
    FormatError,
    is_finite,
    is_integer,
    read_json,
)
from vis_jax.metrics.rle import RleError, check_masks
from vis_jax.metrics.tracks import Truth, TruthTrack, Video, mean_nonzero

# Weights and the worse half: the OVIS evaluator.
OCCLUSION = {"no_occlusion": 0.0, "slight_occlusion": 0.25, "severe_occlusion": 0.75}


def load_truth(path: str | os.PathLike, *, official_quirks: bool = True) -> Truth:
    """Reads a truth file.

    Args:
      path: instances.json.
      official_quirks: accept (and count) what the official tool accepts: lists and
        sizes that disagree with the video, id 0, duplicate ids, unknown categories.

    Raises:
      FormatError: one line with file, place, field, what was expected and what came.
    """
    content = read_json(path)
    return parse_truth(content, name=str(path), official_quirks=official_quirks)


def load_videos(path: str | os.PathLike) -> Truth:
    """The videos and categories of a file with or without annotations; no tracks.

    Raises:
      FormatError: as `load_truth`.
    """
    checker = Checker(str(path), True, Counter())
    content = checker.record(read_json(path), "top level")
    videos, categories = _videos(content, checker), _categories(content, checker)
    return Truth(str(path), videos, categories, [], checker.tolerated)


def parse_truth(
    content: object, *, name: str = "truth", official_quirks: bool = True
) -> Truth:
    """As `load_truth`, from the content of such a file; it is left as it was."""
    checker = Checker(name, not official_quirks, Counter())
    content = checker.record(content, "top level")
    videos = _videos(content, checker)
    categories = _categories(content, checker)
    if content.get("annotations") is None:
        checker.fail("annotations", "a list (this file holds no truth)", None)
    tracks, seen = [], set()
    for index, entry in enumerate(checker.items(content, "annotations", "top level")):
        track = _track(entry, index, videos, checker)
        if track.track_id == 0:
            checker.tolerate("truth: id 0", f"annotations[{index}]: id", ">= 1", 0)
        if track.track_id in seen:
            where = f"annotations[{index}]: id"
            checker.tolerate("truth: duplicate id", where, "a new id", track.track_id)
        if track.category_id not in categories:
            where = f"annotation {track.track_id}: category_id"
            known = "one of `categories`"
            checker.tolerate("truth: category unknown", where, known, track.category_id)
        seen.add(track.track_id)
        tracks.append(track)
    return Truth(name, videos, categories, tracks, checker.tolerated)


def occlusion_score(levels: list[str | None]) -> float:
    """Mean weight over the more occluded half of the frames, in [0, 0.75].

    Source: the OVIS evaluator.

    Args:
      levels: keys of OCCLUSION, None where the object is absent.

    Returns:
      Mean of the highest ceil(n / 2) weights of the n frames with a level; 0 if none.
    """
    weights = sorted((OCCLUSION[x] for x in levels if x is not None), reverse=True)
    half = weights[: (len(weights) + 1) // 2]
    return sum(half) / len(half) if half else 0.0


def _videos(content: dict, checker: Checker) -> dict[int, Video]:
    videos: dict[int, Video] = {}
    for index, entry in enumerate(checker.items(content, "videos", "top level")):
        where = f"videos[{index}]"
        entry = checker.record(entry, where)
        video_id = checker.integer(entry, "id", where, low=0)
        height = checker.field(entry, "height", where)
        width = checker.field(entry, "width", where)
        size = checker.size([height, width], f"{where}: height, width")
        names = entry.get("file_names")
        if names is not None and not isinstance(names, list | tuple):
            checker.fail(f"{where}: file_names", "a list", names)
        length = checker.integer(entry, "length", where, low=1)
        if names is not None and len(names) != length:
            checker.fail(f"{where}: length", f"{len(names)} as file_names", length)
        if video_id in videos:
            checker.fail(f"{where}: id", "a new id", video_id)
        folder = os.path.dirname(str(names[0])) if names else ""
        name = str(entry.get("name") or folder or video_id)
        videos[video_id] = Video(video_id, name, *size, length)
    return videos


def _categories(content: dict, checker: Checker) -> dict[int, str]:
    categories: dict[int, str] = {}
    for index, entry in enumerate(checker.items(content, "categories", "top level")):
        where = f"categories[{index}]"
        entry = checker.record(entry, where)
        category_id = checker.integer(entry, "id", where, low=0)
        if category_id in categories:
            checker.fail(f"{where}: id", "a new id", category_id)
        categories[category_id] = checker.text(entry, "name", where)
    return categories


def _track(
    entry: object, index: int, videos: dict[int, Video], checker: Checker
) -> TruthTrack:
    entry = checker.record(entry, f"annotations[{index}]")
    track_id = checker.integer(entry, "id", f"annotations[{index}]", low=0)
    where = f"annotation {track_id}"
    video_id = checker.integer(entry, "video_id", where, low=0)
    if video_id not in videos:
        checker.fail(f"{where}: video_id", "one of `videos`", video_id)
    video = videos[video_id]
    crowd = checker.field(entry, "iscrowd", where)
    if crowd not in (0, 1):
        checker.fail(f"{where}: iscrowd", "0 or 1", crowd)
    frames = checker.items(entry, "segmentations", where)
    given = checker.items(entry, "areas", where)
    for key, values in (("segmentations", frames), ("areas", given)):
        if len(values) != video.length:
            kind = "truth: list length differs from the video"
            expected = f"{video.length} entries"
            checker.tolerate(kind, f"{where}: {key}", expected, len(values))
    segmentations, areas = _segmentations(frames, where, video, checker)
    return TruthTrack(
        track_id=track_id,
        video_id=video_id,
        category_id=checker.integer(entry, "category_id", where, low=0),
        crowd=bool(crowd),
        segmentations=segmentations,
        areas=areas,
        mean_area=_mean_area(given, where, checker),
        occlusion=_occlusion(entry.get("occlusion"), where, len(frames), checker),
    )


def _mean_area(given: list, where: str, checker: Checker) -> float:
    for frame, area in enumerate(given):
        if area is not None and (not is_finite(area) or area < 0):
            checker.fail(f"{where}: areas[{frame}]", "pixels or null", area)
    return mean_nonzero(np.array([area for area in given if area]))


def _occlusion(
    levels: object, where: str, length: int, checker: Checker
) -> float | None:
    if levels is None:
        return None
    if not isinstance(levels, list) or len(levels) != length:
        got = len(levels) if isinstance(levels, list) else levels
        checker.fail(f"{where}: occlusion", f"a list of {length} entries", got)
    for frame, level in enumerate(levels):
        if level is not None and (not isinstance(level, str) or level not in OCCLUSION):
            expected = f"one of {', '.join(OCCLUSION)} or null"
            checker.fail(f"{where}: occlusion[{frame}]", expected, level)
    return occlusion_score(levels)


def _segmentations(
    frames: list, where: str, video: Video, checker: Checker
) -> tuple[list[dict | None], np.ndarray]:
    """Compressed masks of a track and the pixels of each, 0 where absent."""
    segmentations: list[dict | None] = []
    for t, entry in enumerate(frames):
        here = f"{where}: segmentations[{t}]"
        if entry is None:
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


def _polygons(parts: list, here: str, video: Video, checker: Checker) -> dict | None:
    if not parts:
        checker.tolerate("truth: empty polygon list", here, "polygons or null", parts)
        return None
    # Drawing walks along every edge: far-off corners would take all memory.
    far = 2 * max(video.height, video.width)
    for part in parts:
        sound = isinstance(part, list | tuple) and len(part) >= 6 and len(part) % 2 == 0
        if not sound:
            checker.fail(here, "polygons x1 y1 x2 y2 x3 y3 ..", part)
        if not all(is_finite(value) and abs(value) <= far for value in part):
            checker.fail(here, f"coordinates within {far} pixels", part)
    from pycocotools import mask as coco_mask

    floats = [[float(value) for value in part] for part in parts]
    pieces = coco_mask.frPyObjects(floats, video.height, video.width)
    return coco_mask.merge(pieces)


def _run_lengths(entry: object, here: str, video: Video, checker: Checker) -> dict:
    entry = checker.record(entry, here)
    size = list(checker.size(checker.field(entry, "size", here), f"{here}: size"))
    if size != [video.height, video.width]:
        expected = f"{[video.height, video.width]} as the video"
        checker.tolerate("truth: mask size differs", f"{here}: size", expected, size)
    counts = checker.field(entry, "counts", here)
    if isinstance(counts, list):
        from pycocotools import mask as coco_mask

        _check_counts(counts, size, here, checker)
        raw = {"size": size, "counts": list(counts)}
        counts = coco_mask.frPyObjects(raw, *size)["counts"]
    elif isinstance(counts, str) and counts.isascii():
        counts = counts.encode("ascii")
    elif not isinstance(counts, bytes):
        checker.fail(f"{here}: counts", "a list or an ASCII string", counts)
    return {"size": size, "counts": counts}


def _check_counts(counts: list, size: list[int], here: str, checker: Checker) -> None:
    pixels = size[0] * size[1]
    for count in counts:
        if not is_integer(count) or not 0 <= count <= pixels:
            checker.fail(f"{here}: counts", f"integers 0 .. {pixels}", count)
    if sum(counts) != pixels:
        expected = f"counts that add up to {pixels}"
        checker.fail(f"{here}: counts", expected, int(sum(counts)))
