"""Detects truncated video files, which decoders read without an error."""

from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from vis_jax.predict.errors import PredictError

if TYPE_CHECKING:
    from av.video.stream import VideoStream

_BOXES_OF_FRAMES = (b"mdat", b"moof", b"moov")
_BOXES = (
    *_BOXES_OF_FRAMES,
    *(b"emsg", b"free", b"ftyp", b"meta", b"pdin", b"prft", b"sidx", b"skip", b"styp"),
    *(b"udta", b"uuid", b"wide"),
)
_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"  # ids of Matroska


def check_complete(path: Path, stream: "VideoStream") -> None:
    """Compares the size of a file with the size its headers declare.

    Raises:
      PredictError: the file is truncated.
    """
    indexed = max((entry.pos + entry.size for entry in stream.index_entries), default=0)
    if text := truncation(path, indexed):
        raise PredictError(f"{path}: {text}")


def truncation(path: Path, indexed: int = 0) -> str | None:
    """Describes a file shorter than its headers, or `indexed` bytes; otherwise None."""
    end, size = max(indexed, declared_size(path)), path.stat().st_size
    return f"truncated: expected {end} bytes, got {size}" if end > size else None


def declared_size(path: Path) -> int:
    """Returns the size in bytes that a file's headers declare; 0 if they do not.

    Sources: RFC 8794 (EBML), sections 4 and 6.2; RFC 9559 (Matroska), section 5.1.
    """
    with path.open("rb") as file:
        head = file.read(4096)
        if head[4:8] in _BOXES:
            return _end_of_boxes(file)
    if head.startswith(b"RIFF"):
        size = int.from_bytes(head[4:8], "little")
        return 8 + size if size != 0xFFFF_FFFF else 0
    if not head.startswith(_EBML):
        return 0
    length, start = _ebml_size(head, len(_EBML))
    segment = start + (length or 0)
    if head[segment : segment + 4] != _SEGMENT:
        return 0
    length, start = _ebml_size(head, segment + 4)
    return 0 if length is None else start + length


def _end_of_boxes(file: BinaryIO) -> int:
    """Returns the end of the last box of an MP4 or QuickTime file that frames need.

    Source: ISO 14496-12, 4.2. An unknown box ends the search.
    """
    start = end = 0
    while True:
        file.seek(start)
        head = file.read(16)
        size, kind = int.from_bytes(head[:4], "big"), head[4:8]
        if kind not in _BOXES or size == 0:  # 0: the last box extends to the end
            return end
        if size == 1:
            size = int.from_bytes(head[8:16], "big")
        start += max(size, 8)
        end = start if kind in _BOXES_OF_FRAMES else end


def _ebml_size(data: bytes, at: int) -> tuple[int | None, int]:
    """Returns the data size of an EBML element, None if unknown, and its offset."""
    octets = 9 - data[at].bit_length() if at < len(data) else 9
    if octets > 8 or at + octets > len(data):
        return None, at
    unknown = (1 << 7 * octets) - 1
    size = int.from_bytes(data[at : at + octets], "big") & unknown
    return (None if size == unknown else size), at + octets
