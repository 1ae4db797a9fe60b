"""Reads, validates and writes results files in YouTube-VIS format."""

import contextlib
import gc
import math
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from vis_jax.formats.json_checks import (
    Checker,
    FormatError,
    is_finite,
    write_json,
)
from vis_jax.formats.json_list import read_list, read_list_or_field
from vis_jax.formats.rle import RleError, plain_mask
from vis_jax.formats.rle_check import check_masks
from vis_jax.formats.tracks import (
    Id,
    Results,
    ResultTrack,
    TruthFile,
    TruthVideo,
    means_nonzero,
)
from vis_jax.formats.truth_json import is_size, load_truth

__all__ = ["FormatError", "find_defects", "load_results", "load_truth"]
__all__ += ["parse_results", "video_entries", "write_results"]

# Characters of run lengths checked per batch.
_CHUNK = 1 << 21


def load_results(
    path: str | os.PathLike, truth: TruthFile, *, official_quirks: bool = True
) -> Results:
    """Reads a results file: a list of {video_id, category_id, score, segmentations}.

    Args:
      path: results.json, plain, in a zip or gzipped; or {"results": [..]}.
      truth: ground truth it is scored against.
      official_quirks: accept (and count) defects the official tool accepts: lists and
        sizes that disagree with the video, and unknown categories.

    Raises:
      FormatError: one line with file, position, field, expected and actual value.
    """
    checker = Checker(str(path), not official_quirks, Counter(), side="results")
    # Imported here, as it builds on this module.
    from vis_jax.formats.fast_entries import load_plain, open_list

    tracks = None
    with paused_collection():
        listed = open_list(path)
        if listed is not None:
            span = listed.start, listed.stop
            tracks = load_plain(listed, truth, checker, *span)
        if tracks is None:
            checker.tolerated.clear()
            items = read_list_or_field(path, "results")
            tracks = parse_entries(items, truth, checker)
    return Results(checker.file, tracks, checker.tolerated)


@contextlib.contextmanager
def paused_collection() -> Iterator[None]:
    """Disables garbage collection: parsing makes many objects but no cycles."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def parse_results(
    content: object,
    truth: TruthFile,
    *,
    name: str = "results",
    official_quirks: bool = True,
) -> Results:
    """Like `load_results`, from parsed JSON, which is not modified."""
    checker = Checker(name, not official_quirks, Counter(), side="results")
    if not isinstance(content, list | tuple):
        checker.fail("top level", "a list", content)
    tracks = parse_entries(content, truth, checker)
    return Results(name, tracks, checker.tolerated)


def video_entries(
    labels: Iterable[int] | np.ndarray,
    scores: Iterable[float] | np.ndarray,
    segmentations: Iterable[Sequence[dict | None]],
    *,
    video_id: int | np.integer,
    category_ids: Sequence[int],
) -> list[dict]:
    """Yields the N tracks of one video as entries of a results file, ready for JSON.

    Args:
      labels: N labels, 0 .. K - 1.
      scores: N scores in [0, 1].
      segmentations: [N][T] run lengths {"size": [H, W], "counts": str or bytes}, or
        None where the track is absent.
      video_id: id of the video in the ground truth.
      category_ids: K ids, one per label.
    """
    return [
        {
            "video_id": int(video_id),
            "category_id": int(category_ids[label]),
            "score": float(score),
            "segmentations": [
                None if rle is None else plain_mask(rle) for rle in frames
            ],
        }
        for label, score, frames in zip(labels, scores, segmentations, strict=True)
    ]


def write_results(path: str | os.PathLike, entries: Iterable[dict]) -> None:
    """Writes a results file atomically.

    Args:
      path: results.json.
      entries: {video_id, category_id, score, segmentations}, the last one a list with
        {"size": [h, w], "counts": str or bytes} or None for every frame.

    Raises:
      FormatError: an entry lacks a field, or its score is not finite.
    """
    content = [_plain(entry, f"entry {i}") for i, entry in enumerate(entries)]
    write_json(path, content, indent=None)


def find_defects(path: str | os.PathLike, truth: TruthFile) -> list[str]:
    """Lists, one line each, the defects for which a server may reject a results file.

    Args:
      path: results.json.
      truth: has the server's `videos` and `categories`; tracks are not needed.
    """
    lines: list[str] = []
    checker = Checker(str(path), False, Counter(), lines, "results")
    index = -1
    try:
        for index, entry in enumerate(read_list(path)):
            try:
                track = _track(entry, index, truth.videos, checker)
                check_category(track, truth.categories, checker)
                with_areas([track], checker)
            except FormatError as error:
                lines.append(str(error))
        if index < 0:
            checker.fail("top level", "a list with at least one entry", [])
    except FormatError as error:
        lines.append(str(error))
    return lines


def _plain(entry: dict, where: str) -> dict:
    """Returns the four fields of an entry as Python numbers and strings."""
    checker = Checker("results to write", True, Counter())
    score = checker.field(entry, "score", where)
    if not is_finite(score):
        checker.fail(f"{where}: score", "a finite number", score)
    frames = checker.items(entry, "segmentations", where)
    return {
        "video_id": checker.integer(entry, "video_id", where, low=0),
        "category_id": checker.integer(entry, "category_id", where, low=0),
        "score": float(score),
        "segmentations": [None if rle is None else plain_mask(rle) for rle in frames],
    }


def parse_entries(
    entries: Iterable[object], truth: TruthFile, checker: Checker, *, start: int = 0
) -> list[ResultTrack]:
    """Checks and converts entries one by one.

    Args:
      entries: parsed JSON.
      truth: the videos and categories.
      checker: checker of the file.
      start: index of the first entry in the file.

    Raises:
      FormatError: as `load_results`.
    """
    tracks: list[ResultTrack] = []
    waiting: list[ResultTrack] = []
    characters = 0
    for index, entry in enumerate(entries, start):
        try:
            track = _track(entry, index, truth.videos, checker)
            check_category(track, truth.categories, checker)
        except FormatError:
            with_areas(waiting, checker)  # the first bad entry is the one to name
            raise
        waiting.append(track)
        characters += sum([len(rle["counts"]) for rle in track.segmentations if rle])
        if characters > _CHUNK:
            tracks += with_areas(waiting, checker)
            waiting, characters = [], 0
    tracks += with_areas(waiting, checker)
    return tracks


def _track(
    entry: object, index: int, videos: dict[Id, TruthVideo], checker: Checker
) -> ResultTrack:
    where = f"entry {index}"
    entry = checker.record(entry, where)
    video_id = checker.reference(entry, "video_id", where)
    if video_id not in videos:
        checker.fail(f"{where}: video_id", "a video of the truth", video_id)
    video = videos[video_id]
    score = _score(entry, where, checker)
    frames = checker.items(entry, "segmentations", where)
    if len(frames) != video.length:
        relation = "shorter" if len(frames) < video.length else "longer"
        kind = f"results: list {relation} than the video"
        expected = f"{video.length} entries"
        checker.tolerate(kind, f"{where}: segmentations", expected, len(frames))
    _to_bytes(frames, [video.height, video.width], where, checker)
    category_id = checker.reference(entry, "category_id", where)
    areas = np.zeros(len(frames), np.int64)
    return ResultTrack(index, video_id, category_id, score, frames, areas, 0.0)


def _score(entry: dict, where: str, checker: Checker) -> float:
    """Returns a score; NaN is rejected, as it cannot be ranked."""
    score = checker.field(entry, "score", where)
    if is_finite(score):
        return float(score)
    if not isinstance(score, int | float) or score != score:
        checker.fail(f"{where}: score", "a finite number", score)
    kind = "results: scores that are not finite numbers"
    checker.tolerate(kind, f"{where}: score", "a finite number", score)
    try:
        return float(score)
    except OverflowError:  # an integer of hundreds of digits
        return math.inf if score > 0 else -math.inf


def check_category(
    track: ResultTrack, categories: dict[Id, str], checker: Checker
) -> None:
    """Counts a category missing from the ground truth; an error if strict."""
    if track.category_id not in categories:
        where, kind = (
            f"entry {track.position}: category_id",
            "results: category unknown",
        )
        known = "a category of the truth"
        checker.tolerate(kind, where, known, track.category_id)


def _to_bytes(
    frames: list, video_size: list[int], where: str, checker: Checker
) -> None:
    """Replaces the masks of one track by checked ones."""
    for t, rle in enumerate(frames):
        if rle is None:
            continue
        if not rle:
            here = f"{where}: segmentations[{t}]"
            checker.tolerate(
                "results: absent masks that are not null", here, "null", rle
            )
            frames[t] = None
            continue
        # Fast path for the usual form, as there are many masks.
        if type(rle) is dict:
            size, counts = rle.get("size"), rle.get("counts")
            if is_size(size, video_size) and type(counts) is str and counts.isascii():
                frames[t] = {"size": video_size, "counts": counts.encode()}
                continue
        frames[t] = _run_lengths(
            rle, f"{where}: segmentations[{t}]", video_size, checker
        )


def _run_lengths(
    rle: object, where: str, video_size: list[int], checker: Checker
) -> dict:
    """Returns the mask with counts as bytes; shares `video_size` to save memory."""
    rle = checker.record(rle, where)
    size = checker.field(rle, "size", where)
    if is_size(size, video_size):
        size = video_size
    else:
        size = list(checker.size(size, f"{where}: size"))
        if size != video_size:
            expected = f"{video_size} as the video"
            kind = "results: mask size differs from the video"
            checker.tolerate(kind, f"{where}: size", expected, size)
    counts = checker.field(rle, "counts", where)
    if isinstance(counts, str) and counts.isascii():
        counts = counts.encode("ascii")
    elif not isinstance(counts, bytes):
        checker.fail(f"{where}: counts", "compressed run lengths (a string)", counts)
    return {"size": size, "counts": counts}


def with_areas(tracks: list[ResultTrack], checker: Checker) -> list[ResultTrack]:
    """Fills in the areas of tracks after checking their masks."""
    frames = [rle for track in tracks for rle in track.segmentations]
    masks = [rle for rle in frames if rle is not None]
    areas = np.zeros(len(frames), np.int64)
    present = np.array([rle is not None for rle in frames], bool)
    try:
        areas[present], mended = check_masks(masks)
    except RleError as error:
        i, t = _place(tracks, int(np.flatnonzero(present)[error.index]))
        where = f"entry {tracks[i].position}: segmentations[{t}]: counts"
        raise FormatError(f"{checker.file}: {where}: {error}") from error
    if mended:
        checker.tolerated["results: masks with empty runs"] += mended
    lengths = np.array([len(track.segmentations) for track in tracks], np.int64)
    stops = np.cumsum(lengths)
    means = means_nonzero(areas, stops).tolist()
    return [
        track._replace(areas=areas[stop - length : stop], mean_area=mean)
        for track, stop, length, mean in zip(
            tracks, stops.tolist(), lengths.tolist(), means, strict=True
        )
    ]


def _place(tracks: list[ResultTrack], index: int) -> tuple[int, int]:
    """Returns track and frame of an index into their concatenated frames."""
    stops = np.cumsum([len(track.areas) for track in tracks])
    i = int(np.searchsorted(stops, index, side="right"))
    return i, index - int(stops[i]) + len(tracks[i].areas)
