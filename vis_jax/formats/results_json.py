"""Results files in the style of YouTube-VIS: read, checked, written."""

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
    Video,
    mean_nonzero,
)
from vis_jax.formats.truth_json import load_truth

__all__ = ["FormatError", "find_defects", "load_results", "load_truth"]
__all__ += ["parse_results", "video_entries", "write_results"]

# Characters of run lengths gathered before they are checked.
_CHUNK = 1 << 21


def load_results(
    path: str | os.PathLike, truth: TruthFile, *, official_quirks: bool = True
) -> Results:
    """Reads a results file: a list of {video_id, category_id, score, segmentations}.

    Args:
      path: results.json, also in a zip, compressed with gzip, or {"results": [..]}.
      truth: the file it is scored against.
      official_quirks: accept (and count) what the official tool accepts: lists and
        sizes that disagree with the video, and unknown categories.

    Raises:
      FormatError: one line with file, place, field, what was expected and what came.
    """
    checker = Checker(str(path), not official_quirks, Counter(), side="results")
    # Imported here, as it builds on this module.
    from vis_jax.formats.fast_entries import load_tracks, plain_entries

    with paused_collection():
        entries = plain_entries(path)
        if entries is None:
            listed = read_list_or_field(path, "results")
            tracks = parse_entries(listed, truth, checker)
        else:
            tracks = load_tracks(entries, truth, checker)
    return Results(checker.file, tracks, checker.tolerated)


@contextlib.contextmanager
def paused_collection() -> Iterator[None]:
    """Without the search for cycles: a file makes none, but very many objects."""
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
    """As `load_results`, from the content of such a file; it is left as it was."""
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
    """The N tracks of one video as entries of a results file, ready for JSON.

    Args:
      labels: N numbers, 0 .. K - 1.
      scores: N numbers in [0, 1].
      segmentations: [N][T] run lengths {"size": [H, W], "counts": str or bytes}, or
        None where the track is absent.
      video_id: of the video in the truth.
      category_ids: K numbers, that of every label.
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
    """Writes a results file; under its name there is never half a file.

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
    """A line for each thing in a results file for which a server may refuse it.

    Args:
      path: results.json.
      truth: its `videos` and `categories` are those of the server; no tracks needed.
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
    """The four fields of an entry, as Python numbers and strings."""
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
    """Checks and keeps each entry before it takes the next.

    Args:
      entries: as JSON has them.
      truth: the videos and categories.
      checker: of the file.
      start: place in the file of the first.

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
    entry: object, index: int, videos: dict[Id, Video], checker: Checker
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
    """A score; NaN has no place in an order."""
    score = checker.field(entry, "score", where)
    if is_finite(score):
        return float(score)
    if not isinstance(score, int | float) or score != score:
        checker.fail(f"{where}: score", "a finite number", score)
    kind = "results: scores that are no finite number"
    checker.tolerate(kind, f"{where}: score", "a finite number", score)
    try:
        return float(score)
    except OverflowError:  # an integer of hundreds of digits
        return math.inf if score > 0 else -math.inf


def check_category(
    track: ResultTrack, categories: dict[Id, str], checker: Checker
) -> None:
    """Counts a category that the truth does not have; an error if strict."""
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
    """Puts checked masks in the place of the masks of one track."""
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
        # What nearly all masks look like goes the short way: there are many.
        if type(rle) is dict:
            size, counts = rle.get("size"), rle.get("counts")
            if _is(size, video_size) and type(counts) is str and counts.isascii():
                frames[t] = {"size": video_size, "counts": counts.encode()}
                continue
        frames[t] = _run_lengths(
            rle, f"{where}: segmentations[{t}]", video_size, checker
        )


def _is(size: object, video_size: list[int]) -> bool:
    """Whether a size is a list of the same two integers; 10.0 and true are none."""
    if type(size) is not list or size != video_size:
        return False
    return type(size[0]) is type(size[1]) is int


def _run_lengths(
    rle: object, where: str, video_size: list[int], checker: Checker
) -> dict:
    """The mask with its counts as bytes; `video_size` is shared to save memory."""
    rle = checker.record(rle, where)
    size = checker.field(rle, "size", where)
    if _is(size, video_size):
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
    """Fills in the areas of some tracks, after a check of their masks."""
    frames = [rle for track in tracks for rle in track.segmentations]
    areas = np.zeros(len(frames), np.int64)
    present = np.array([rle is not None for rle in frames], bool)
    try:
        areas[present], mended = check_masks([rle for rle in frames if rle is not None])
    except RleError as error:
        i, t = _place(tracks, int(np.flatnonzero(present)[error.index]))
        where = f"entry {tracks[i].position}: segmentations[{t}]: counts"
        raise FormatError(f"{checker.file}: {where}: {error}") from error
    if mended:
        checker.tolerated["results: masks with empty runs"] += mended
    filled, start = [], 0
    for track in tracks:
        own = areas[start : start + len(track.areas)].copy()
        filled.append(track._replace(areas=own, mean_area=mean_nonzero(own)))
        start += len(own)
    return filled


def _place(tracks: list[ResultTrack], index: int) -> tuple[int, int]:
    """Track and frame of an index into all their frames in a row."""
    stops = np.cumsum([len(track.areas) for track in tracks])
    i = int(np.searchsorted(stops, index, side="right"))
    return i, index - int(stops[i]) + len(tracks[i].areas)
