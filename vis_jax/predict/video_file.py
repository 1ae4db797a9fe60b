"""Frames of a video file: upright, and with a count of those that are damaged."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple, cast

import numpy as np

from data_pipeline.images import MAX_PIXELS, MAX_SIDE
from vis_jax.predict.errors import PredictError

if TYPE_CHECKING:
    from av import VideoFrame
    from av.container import InputContainer
    from av.video.stream import VideoStream

_SKEW = 0.02  # of a display matrix, relative to its scale: about one degree
_BOXES_OF_FRAMES = (b"mdat", b"moof", b"moov")
_BOXES = (
    *_BOXES_OF_FRAMES,
    *(b"emsg", b"free", b"ftyp", b"meta", b"pdin", b"prft", b"sidx", b"skip", b"styp"),
    *(b"udta", b"uuid", b"wide"),
)
_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"  # ids of Matroska


class Scan(NamedTuple):
    """What decoding a whole video shows."""

    height: int  # pixels, of the upright frame
    width: int
    num_frames: int
    fps: Fraction | None  # frames a second; None: the file does not say
    damage: str | None  # one line without the file's name; None: no damage seen


@dataclass
class _Damage:
    """What a decoder says about the data it gets."""

    frames: list[int] = field(default_factory=list)  # flagged as damaged
    packets: int = 0  # flagged as damaged
    lost: int = 0  # packets that gave an error in place of a frame

    def text(self, num_frames: int) -> str | None:
        number = max(len(self.frames), self.packets)
        texts = []
        if number:
            where = f", the first is number {self.frames[0]}" if self.frames else ""
            verb = "is" if number == 1 else "are"
            texts = [f"{number} of {num_frames} frames {verb} damaged{where}"]
        if self.lost:
            texts.append(f"{self.lost} packets could not be decoded and are left out")
        return "; ".join(texts) or None


def scan_video(path: Path) -> Scan:
    """Decodes a video once, as what headers say is not reliable.

    Raises:
      PredictError: no video, cut off, or frames of different sizes.
    """
    size, num_frames, damage = None, 0, _Damage()
    for frame in _decode(path, damage):
        found = _upright_size(frame, path)
        size = check_same_size(f"{path}, frame {num_frames}", found, size or found)
        num_frames += 1
    if size is None:
        raise PredictError(f"{path}: no frame could be decoded")
    return Scan(*size, num_frames, _frame_rate(path), damage.text(num_frames))


def read_video(path: Path) -> Iterator[np.ndarray]:
    """Yields uint8 [H, W, 3], RGB, upright, in order of display."""
    for frame in _decode(path, _Damage()):
        pixels = frame.to_ndarray(format="rgb24")
        yield np.ascontiguousarray(_orientation(frame, path).apply(pixels))


def check_same_size(
    where: str, size: tuple[int, int], expected: tuple[int, int]
) -> tuple[int, int]:
    """`size`, height and width, if it is that of the first frame."""
    if size != expected:
        raise PredictError(
            f"{where}: expected the size of the first frame, {expected[0]} x"
            f" {expected[1]} (height x width), got {size[0]} x {size[1]}"
        )
    return size


def check_bounds(where: str, height: int, width: int) -> None:
    """Raises PredictError for frames of more pixels than masks can have."""
    if max(height, width) > MAX_SIDE or height * width > MAX_PIXELS:
        raise PredictError(
            f"{where}: expected frames of at most {MAX_SIDE} pixels a side and"
            f" {MAX_PIXELS} in all, got {height} x {width} (height x width)"
        )


def _open(path: Path) -> "InputContainer":
    import av

    # Of a relative path FFmpeg takes what comes before a colon for a protocol.
    # A playlist may name local files, but nothing on a network. Titles are in any code.
    return av.open(
        str(path.absolute()),
        options={"protocol_whitelist": "file"},
        metadata_errors="replace",
    )


def _stream(path: Path, container: "InputContainer") -> "VideoStream":
    """The first video stream that is no picture attached to sound."""
    from av.stream import Disposition

    pictures = Disposition.attached_pic | Disposition.timed_thumbnails
    for stream in container.streams.video:
        if not stream.disposition & pictures:
            return stream
    raise PredictError(f"{path}: has no video stream")


def _decode(path: Path, damage: _Damage) -> Iterator["VideoFrame"]:
    """The decoded frames as PyAV gives them; adds to `damage`."""
    import av

    num_frames = 0
    try:
        with _open(path) as container:
            stream = _stream(path, container)
            if stream.codec_context is None:
                raise PredictError(f"{path}: its video codec is unknown")
            stream.thread_type = "AUTO"
            check_bounds(str(path), stream.height, stream.width)
            _check_complete(path, stream)
            for packet in container.demux(stream):
                damage.packets += packet.is_corrupt
                try:
                    frames = packet.decode()
                except av.InvalidDataError:
                    damage.lost += 1
                    continue
                for frame in frames:
                    if frame.is_corrupt:
                        damage.frames.append(num_frames)
                    yield frame
                    num_frames += 1
    except (av.FFmpegError, OSError) as error:
        raise PredictError(
            f"{path}: not a readable video (after {num_frames} frames): {error}"
        ) from error


def _check_complete(path: Path, stream: "VideoStream") -> None:
    """Compares the file with what it says of itself: decoders end without a word."""
    indexed = max((entry.pos + entry.size for entry in stream.index_entries), default=0)
    end, size = max(indexed, _declared_size(path)), path.stat().st_size
    if end > size:
        raise PredictError(f"{path}: truncated: expected {end} bytes, got {size}")


def _declared_size(path: Path) -> int:
    """Bytes that a file has to have by what it says of itself; 0 if it does not say.

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
    """Where the last box of an MP4 or QuickTime file ends that frames depend on.

    Source: ISO 14496-12, 4.2. What is no known box may be anything and ends the search.
    """
    start = end = 0
    while True:
        file.seek(start)
        head = file.read(16)
        size, kind = int.from_bytes(head[:4], "big"), head[4:8]
        if kind not in _BOXES or size == 0:  # of the last box: up to the end
            return end
        if size == 1:
            size = int.from_bytes(head[8:16], "big")
        start += max(size, 8)
        end = start if kind in _BOXES_OF_FRAMES else end


def _ebml_size(data: bytes, at: int) -> tuple[int | None, int]:
    """Size of the data of an EBML element, None if unknown, and where they begin."""
    octets = 9 - data[at].bit_length() if at < len(data) else 9
    if octets > 8 or at + octets > len(data):
        return None, at
    unknown = (1 << 7 * octets) - 1
    size = int.from_bytes(data[at : at + octets], "big") & unknown
    return (None if size == unknown else size), at + octets


def _frame_rate(path: Path) -> Fraction | None:
    with _open(path) as container:
        stream = _stream(path, container)
        return stream.average_rate or stream.guessed_rate or None


class _Orientation(NamedTuple):
    """How a decoded frame becomes upright."""

    transpose: bool  # comes first
    flip_rows: bool
    flip_columns: bool

    def apply(self, pixels: np.ndarray) -> np.ndarray:
        """A view of [H, W, 3]."""
        if self.transpose:
            pixels = pixels.swapaxes(0, 1)
        rows, columns = (-1 if flip else 1 for flip in self[1:])
        return pixels[::rows, ::columns]


def _orientation(frame: "VideoFrame", path: Path) -> _Orientation:
    """What the display matrix says: a pixel at column p, row q of the decoded frame is
    shown at column a p + c q, row b p + d q, but for an offset.

    Source: ISO 14496-12, 6.2.2; libavutil/display.h.

    Raises:
      PredictError: neither quarter turns nor mirroring.
    """
    data = cast("bytes | None", frame.side_data.get("DISPLAYMATRIX"))
    if data is None:
        return _Orientation(False, False, False)
    (a, b, _), (c, d, _), _ = np.frombuffer(data, "=i4").reshape(3, 3).tolist()
    small = _SKEW * max(abs(x) for x in (a, b, c, d))
    if max(abs(b), abs(c)) <= small < min(abs(a), abs(d)):
        return _Orientation(False, d < 0, a < 0)
    if max(abs(a), abs(d)) <= small < min(abs(b), abs(c)):
        return _Orientation(True, b < 0, c < 0)
    if not small:  # all zero, as some writers leave it
        return _Orientation(False, False, False)
    matrix = [[round(x / 65536, 3) for x in row] for row in ((a, b), (c, d))]
    raise PredictError(
        f"{path}: display matrix: expected quarter turns and mirroring, got {matrix}"
    )


def _upright_size(frame: "VideoFrame", path: Path) -> tuple[int, int]:
    if _orientation(frame, path).transpose:
        return frame.width, frame.height
    return frame.height, frame.width
