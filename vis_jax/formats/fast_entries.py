"""Fast decoding of well-formed results files with msgspec.

msgspec is stricter than Python's `json` and has its own error messages, so entries that
it or these checks reject are read again by `results_json`, which accepts them or
reports the defect.
"""

import json
import mmap
import os
from collections.abc import Sequence

import msgspec
import numpy as np

from vis_jax.formats.json_checks import Checker, reading
from vis_jax.formats.results_json import check_category, parse_entries, with_areas
from vis_jax.formats.tracks import ResultTrack, TruthFile

_CHUNK = 1 << 19  # bytes of entries handled at once
_BLOCK = 1 << 20
_ENORMOUS = 1e18  # scores from here on are no finite numbers to `results_json`


class _Mask(msgspec.Struct, gc=False):
    size: tuple[int, int]
    counts: msgspec.Raw


class _Entry(msgspec.Struct, gc=False):
    video_id: int
    category_id: int
    score: float
    segmentations: list[_Mask | None]


_DECODER = msgspec.json.Decoder(_Entry)
_LIST = msgspec.json.Decoder(list[msgspec.Raw])


def plain_entries(path: str | os.PathLike) -> list[msgspec.Raw] | None:
    """Splits a file that is one ASCII JSON list into its raw entries.

    Returns:
      None for every other file, including one that is not JSON.

    Raises:
      FormatError: the file is not readable.
    """
    with reading(path), open(path, "rb") as file:
        if not os.fstat(file.fileno()).st_size:
            return None
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    characters = np.frombuffer(content, np.uint8)
    for start in range(0, len(characters), _BLOCK):
        if characters[start : start + _BLOCK].max() > 127:
            return None
    try:
        return _LIST.decode(content)
    except (msgspec.MsgspecError, RecursionError):
        return None


def load_tracks(
    entries: Sequence[msgspec.Raw],
    truth: TruthFile,
    checker: Checker,
    *,
    start: int = 0,
) -> list[ResultTrack]:
    """Decodes and checks the tracks of entries.

    Args:
      entries: entries from `plain_entries`, or some of them.
      truth: the videos and categories.
      checker: checker of the file.
      start: index of the first entry in the file.

    Raises:
      FormatError: as in `results_json.load_results`.
    """
    tracks: list[ResultTrack] = []
    for part in _chunks(entries):
        place, raws = start + part.start, entries[part]
        found = _sound(raws, place, truth)
        if found is None:
            with reading(checker.file):
                contents = [json.loads(bytes(raw)) for raw in raws]
            tracks += parse_entries(contents, truth, checker, start=place)
        else:
            for track in found:
                check_category(track, truth.categories, checker)
            tracks += with_areas(found, checker)
    return tracks


def _chunks(entries: Sequence[msgspec.Raw]) -> list[slice]:
    """Consecutive entries of some MB."""
    sizes = np.array([len(memoryview(raw)) for raw in entries], np.int64)
    chunk = np.cumsum(sizes) // _CHUNK
    edges = [0, *(np.flatnonzero(np.diff(chunk)) + 1).tolist(), len(entries)]
    return [slice(a, b) for a, b in zip(edges[:-1], edges[1:], strict=True) if a < b]


def _sound(
    raws: Sequence[msgspec.Raw], start: int, truth: TruthFile
) -> list[ResultTrack] | None:
    """Decodes tracks, without areas; None if any entry is irregular."""
    try:
        entries = [_DECODER.decode(raw) for raw in raws]
    except msgspec.MsgspecError:
        return None
    masks = [mask for entry in entries for mask in entry.segmentations if mask]
    strings = _strings([mask.counts for mask in masks])
    if strings is None:
        return None
    waiting = iter(strings)
    tracks = []
    for position, entry in enumerate(entries, start):
        video = truth.videos.get(entry.video_id)
        frames = entry.segmentations
        if video is None or len(frames) != video.length:
            return None
        if not -_ENORMOUS < entry.score < _ENORMOUS:
            return None
        size, shared = (video.height, video.width), [video.height, video.width]
        if not all(mask is None or mask.size == size for mask in frames):
            return None
        segmentations: list[dict | None] = [
            None if mask is None else {"size": shared, "counts": next(waiting)}
            for mask in frames
        ]
        areas = np.zeros(len(frames), np.int64)
        ids = (entry.video_id, entry.category_id)
        tracks.append(
            ResultTrack(position, *ids, entry.score, segmentations, areas, 0.0)
        )
    return tracks


def _strings(raws: list[msgspec.Raw]) -> list[bytes] | None:
    """Decodes ASCII JSON strings.

    Returns:
      None if one is not a string, or has escapes other than an escaped backslash.
    """
    strings = []
    for raw in raws:
        string = bytes(raw)
        if string[0] != ord('"'):
            return None
        string = string[1:-1]
        if b"\\" in string:
            single = string.replace(b"\\\\", b"\\")
            if single.count(b"\\") != len(string) - len(single):
                return None
            string = single
        strings.append(string)
    return strings
