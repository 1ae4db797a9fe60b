"""Finds every defect of a folder in the YouTube-VIS format.

Annotations are checked by the rules of the reader, `ytvis_json`, which stops at the
first defect. Further checks: file names used twice, tracks that are never visible,
images; and, as warnings, boxes and areas that contradict the masks.
"""

from concurrent.futures import Executor, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from data_pipeline.checks.track import check_numbers
from data_pipeline.datasets.dataset import Video
from data_pipeline.datasets.ytvis import read_frame
from data_pipeline.datasets.ytvis_json import (
    Annotations,
    annotation_title,
    parse_annotations,
    read_json,
    video_title,
)
from data_pipeline.datasets.ytvis_layout import DatasetPaths, find_layout
from data_pipeline.errors import DataError, Report, shorten

_THREADS = 4  # frames decoded at a time


class Checked(NamedTuple):
    """Valid content of a folder."""

    layout: DatasetPaths
    content: Annotations


class Count(NamedTuple):
    """Number of videos, tracks and frames of a category, or in total."""

    name: str
    videos: int  # with a track
    tracks: int
    frames: int  # with a mask


def check_folder(
    root: str | Path,
    split: str,
    *,
    defect: Report,
    warning: Report,
    progress: bool = False,
) -> Checked:
    """Checks the annotations and decodes every image, several at a time.

    Args:
      root: folder of the data set.
      split: for example "train", as for `YouTubeVis`.
      defect: receives each defect as it is found.
      warning: receives usable irregularities.
      progress: show a bar.

    Raises:
      DataError: there is no such folder, or its annotation file is not a JSON object.
    """
    layout = find_layout(root, split)
    raw = read_json(layout.annotations)
    damaged: set[object] = set()  # annotations with a mask that cannot be read

    def note(error: DataError) -> None:
        if (error.field or "").startswith("segmentations"):
            damaged.add(error.annotation)
        defect(error)

    content = parse_annotations(raw, layout.annotations, note)
    _check_fields(raw.get("annotations"), content, layout.annotations, warning)
    _check_names(content.videos, layout.annotations, defect)
    bar = tqdm(content.videos, "videos", disable=not progress)
    with ThreadPoolExecutor(_THREADS) as pool:
        for index, video in enumerate(bar):
            for track in content.tracks[index]:
                entry = raw["annotations"][track.entry]
                title = annotation_title(entry, track.entry)
                if title in damaged:  # the remaining masks prove nothing
                    continue
                fail = partial(DataError, layout.annotations, annotation=title)
                fail = partial(fail, video=video_title(video))
                if (track.mask_index < 0).all():
                    expected = "pixels in at least one frame"
                    defect(fail(field="segmentations", expected=expected, got="none"))
                check_numbers(entry, track, content.runs, video, fail, warning)
            _check_images(layout, video, pool, defect)
    return Checked(layout, content)


def count(content: Annotations) -> tuple[Count, ...]:
    """Counts each category, ordered by id, and finally the total."""
    names = [category.name for category in content.categories]
    totals = np.zeros((len(names) + 1, 3), int)
    for video, tracks in zip(content.videos, content.tracks, strict=True):
        for row in range(len(names) + 1):
            here = [t for t in tracks if row in (t.label, len(names))]
            seen = np.zeros(video.length, bool)
            for track in here:
                seen |= track.mask_index >= 0
            totals[row] += (len(here) > 0, len(here), seen.sum())
    return tuple(
        Count(name, *numbers)
        for name, numbers in zip([*names, "all"], totals.tolist(), strict=True)
    )


def _check_fields(
    entries: object, content: Annotations, file: Path, warning: Report
) -> None:
    """Warns of missing fields that scoring needs, and if there are no objects."""
    if not isinstance(entries, list):  # a file without ground truth
        return
    tracks = [track for some in content.tracks for track in some]
    shown = [track.entry for track in tracks if (track.mask_index >= 0).any()]
    if not shown:
        expected = "objects, as training and scoring need some"
        warning(DataError(file, field="annotations", expected=expected, got="none"))
    for key in ("areas", "iscrowd"):
        lacking = [
            annotation_title(entries[k], k)
            for k in shown
            if entries[k].get(key) is None
        ]
        if lacking:
            expected = "a value, which scoring requires"
            got = f"nothing in {len(lacking)} annotations"
            fail = partial(DataError, file, annotation=lacking[0])
            warning(fail(field=key, expected=expected, got=got))
    flat = [annotation_title(entries[k], k) for k in shown if _has_flat(entries[k])]
    if flat:
        expected = "lists of polygons, which scoring requires"
        got = f"single flat polygons in {len(flat)} annotations"
        fail = partial(DataError, file, annotation=flat[0])
        warning(fail(field="segmentations", expected=expected, got=got))


def _has_flat(entry: dict) -> bool:
    """Whether a mask is a flat list of numbers, which only our reader accepts."""
    return any(
        isinstance(mask, list) and mask and type(mask[0]) in (int, float)
        for mask in entry["segmentations"]
    )


def _check_names(videos: tuple[Video, ...], file: Path, defect: Report) -> None:
    """Reports files used for more than one frame."""
    places: dict[str, tuple[Video, int]] = {}
    for video in videos:
        for frame, name in enumerate(video.file_names):
            if not name:  # already reported
                continue
            if name not in places:
                places[name] = video, frame
                continue
            first, place = places[name]
            defect(
                DataError(
                    file,
                    video=video_title(video),
                    field=f"file_names[{frame}]",
                    expected=f"a name used once, unlike file_names[{place}] of video"
                    f" {shorten(video_title(first))}",
                    got=name,
                )
            )


def _check_images(
    layout: DatasetPaths, video: Video, pool: Executor, defect: Report
) -> None:
    names = [name for name in video.file_names if name]
    for error in pool.map(partial(_defect_of_image, layout, video), names):
        if error is not None:
            defect(error)


def _defect_of_image(layout: DatasetPaths, video: Video, name: str) -> DataError | None:
    try:
        read_frame(layout.images / name, video, root=layout.root)
    except DataError as error:
        return error.with_traceback(None)  # a traceback would keep the frame in memory
    return None
