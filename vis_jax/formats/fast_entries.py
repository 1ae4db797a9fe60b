"""Fast decoding of well-formed results files with msgspec, piece by piece.

msgspec is stricter than Python's `json` and has its own error messages, so entries that
it or these checks reject are read again by `results_json`, which accepts them or
reports the defect.
"""

import json
import mmap
import os
import re
from typing import NamedTuple

import msgspec
import numpy as np

from vis_jax.formats.json_checks import Checker, open_regular, reading
from vis_jax.formats.results_json import check_category, parse_entries, with_areas
from vis_jax.formats.tracks import ResultTrack, TruthFile

_PIECE = 1 << 19  # bytes of entries handled at once
_ENORMOUS = 1e18  # from here on, `results_json` decides what is finite

_SPACE = b" \t\n\r"
# A list, and the first entry up to its first colon.
_OPENING = re.compile(rb'[ \t\n\r]*\[[ \t\n\r]*(\{[ \t\n\r]*"[^"\\]{1,99}"[ \t\n\r]*:)')


class _Mask(msgspec.Struct, gc=False):
    size: tuple[int, int]
    counts: str


class _Entry(msgspec.Struct, gc=False):
    video_id: int
    category_id: int
    score: float
    segmentations: list[_Mask | None]


class _Head(msgspec.Struct):
    video_id: int


_DECODER = msgspec.json.Decoder(list[_Entry])
_HEAD = msgspec.json.Decoder(_Head)


class PlainList(NamedTuple):
    """The text of a JSON list, decoded in pieces.

    A piece is the text between two commas. Put in brackets, it must parse as a list
    with at least one entry, which proves that both commas separate entries: text cut
    anywhere else is not JSON. Cuts may thus be guessed from the start of the first
    entry.
    """

    content: mmap.mmap
    mark: bytes  # the first entry up to its first colon
    start: int  # indices of the brackets of the list
    stop: int

    def cut(self, at: int) -> int:
        """Returns the first comma from index `at` on that is before an entry.

        Without one, the end of the list.
        """
        place = self.content.find(self.mark, at, self.stop)
        while place >= 0:
            comma = place - 1
            while self.content[comma] in _SPACE:
                comma -= 1
            if comma >= at and self.content[comma] == ord(","):
                return comma
            place = self.content.find(self.mark, place + 1, self.stop)
        return self.stop

    def cut_between_videos(self, at: int) -> int:
        """Like `cut`, but between entries of different videos."""
        comma = self.cut(at)
        place = self.content.rfind(self.mark, self.start, comma)
        try:
            before = _HEAD.decode(self.content[place:comma]).video_id
            while comma < self.stop:
                after = self.cut(comma + 1)
                video_id = _HEAD.decode(self.content[comma + 1 : after]).video_id
                if video_id != before:
                    return comma
                comma = after
        except msgspec.MsgspecError:  # an irregular entry
            pass
        return self.stop

    def piece(self, start: int, stop: int) -> bytes | None:
        """Returns the list from one cut to another; None if it is not ASCII."""
        text = b"[" + self.content[start + 1 : stop] + b"]"
        return text if text.isascii() else None


def open_list(path: str | os.PathLike) -> PlainList | None:
    """Opens a file; None if it is surely not a list of objects.

    Raises:
      FormatError: the file is not readable.
    """
    with reading(path), open_regular(path) as file:
        if not os.fstat(file.fileno()).st_size:
            return None
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    opening, stop = _OPENING.match(content), content.rfind(b"]")
    if opening is None or content[stop + 1 :].strip(_SPACE):
        return None
    return PlainList(content, opening.group(1), opening.group().index(b"["), stop)


def load_plain(
    listed: PlainList, truth: TruthFile, checker: Checker, start: int, stop: int
) -> list[ResultTrack] | None:
    """Decodes and checks the tracks of a file, or of a part of it.

    Args:
      listed: text of the file.
      truth: the videos and categories.
      checker: checker of the file.
      start, stop: the part, between two cuts; entries are numbered from its start.

    Returns:
      None if this is not a part of a list, or not in ASCII.

    Raises:
      FormatError: as in `results_json.load_results`.
    """
    tracks: list[ResultTrack] = []
    while start < stop:
        end = min(listed.cut(start + _PIECE), stop)
        piece = listed.piece(start, end)
        if piece is None:
            return None
        found = _sound(piece, len(tracks), truth)
        if found is None:
            try:
                contents = json.loads(piece)
            except (ValueError, RecursionError):
                return None
            if not contents:
                return None
            tracks += parse_entries(contents, truth, checker, start=len(tracks))
        else:
            for track in found:
                check_category(track, truth.categories, checker)
            tracks += with_areas(found, checker)
        start = end
    return tracks


def _sound(piece: bytes, start: int, truth: TruthFile) -> list[ResultTrack] | None:
    """Decodes tracks, without areas; None if there is none or any is irregular."""
    try:
        entries = _DECODER.decode(piece)
        tracks = [
            _track(entry, position, truth)
            for position, entry in enumerate(entries, start)
        ]
    except (msgspec.MsgspecError, RecursionError, UnicodeEncodeError):
        return None
    sound = [track for track in tracks if track is not None]
    return sound if sound and len(sound) == len(tracks) else None


def _track(entry: _Entry, position: int, truth: TruthFile) -> ResultTrack | None:
    """Checks an entry against its video; None if it is irregular."""
    video, frames = truth.videos.get(entry.video_id), entry.segmentations
    if video is None or len(frames) != video.length:
        return None
    if not -_ENORMOUS < entry.score < _ENORMOUS:
        return None
    if {mask.size for mask in frames if mask} - {(video.height, video.width)}:
        return None
    size = [video.height, video.width]  # shared, to save memory
    segmentations: list[dict | None] = [
        None if mask is None else {"size": size, "counts": mask.counts.encode("ascii")}
        for mask in frames
    ]
    areas = np.zeros(len(frames), np.int64)
    ids = (entry.video_id, entry.category_id)
    return ResultTrack(position, *ids, entry.score, segmentations, areas, 0.0)
