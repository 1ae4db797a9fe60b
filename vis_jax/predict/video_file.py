"""Frames that FFmpeg decodes: upright, and with a count of those that are damaged."""

import itertools
import statistics
import time
from collections import deque
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol, cast, runtime_checkable

import numpy as np

from data_pipeline.images import MAX_PIXELS, MAX_SIDE
from vis_jax.predict.complete import check_complete
from vis_jax.predict.errors import PredictError

if TYPE_CHECKING:
    from av import Packet, VideoFrame
    from av.container import InputContainer
    from av.video.stream import VideoStream

_SKEW = 0.02  # of a display matrix, relative to its scale: about one degree
_PAUSE = 0.005  # seconds before a device that has no frame yet is asked again
# Of a live video: what is usual between frames is seen from the last so many, ..
_TIMES = 32
_LEAST_TIMES = 6  # .. at least from these, and a gap is longer by ..
_GAP = 1.5  # .. more than this factor.


class Frame(NamedTuple):
    """A frame on its way, and when it is shown."""

    pixels: np.ndarray  # uint8 [H, W, 3], RGB, upright
    seconds: float  # since the first frame


@runtime_checkable
class Bytes(Protocol):
    """What FFmpeg can read, and go back in if it also has `seek` and `tell`."""

    def read(self, size: int, /) -> bytes:
        """Up to `size` bytes, none at the end."""
        ...


class Input(NamedTuple):
    """What FFmpeg opens."""

    name: str  # in messages
    file: str | Bytes  # an address, or the content
    # What it may read besides, as through a playlist: protocols, separated by commas.
    protocols: str = "file"
    path: Path | None = None  # a file whose end is checked
    format: str | None = None  # None: found out from the content
    options: tuple[tuple[str, str], ...] = ()  # of FFmpeg, by name
    live: bool = False  # frames come as they are made: no delay by decoding ahead
    wait: float | None = None  # seconds for the next data; None: for ever


class _Gaps:
    """Frames that are missing by the times of those that came."""

    def __init__(self) -> None:
        self.missing = 0  # as many as would fit into the gaps
        self.first: int | None = None  # the number of the frame before the first gap
        self._times: deque[float] = deque(maxlen=_TIMES)  # seconds of the last frames

    def add(self, number: int, seconds: float) -> None:
        """The next frame."""
        if len(self._times) >= _LEAST_TIMES:
            interval, usual = seconds - self._times[-1], self._usual()
            if 0 < _GAP * usual < interval:
                self.missing += round(interval / usual) - 1
                self.first = number - 1 if self.first is None else self.first
        self._times.append(seconds)

    def _usual(self) -> float:
        """Seconds between two frames; over two intervals, as one may be long and the
        next one short."""
        times = list(self._times)
        return statistics.median(
            (after - before) / 2
            for before, after in zip(times, times[2:], strict=False)
        )


@dataclass
class _Damage:
    """What a decoder says about the data it gets."""

    frames: int = 0  # flagged as damaged
    first: int | None = None  # the number of the first of them
    packets: int = 0  # flagged as damaged
    lost: int = 0  # packets that gave an error in place of a frame

    def add(self, number: int) -> None:
        """A damaged frame."""
        self.frames += 1
        self.first = number if self.first is None else self.first

    def texts(self, num_frames: int) -> list[str]:
        number = max(self.frames, self.packets)
        texts = []
        if number:
            where = "" if self.first is None else f", the first is number {self.first}"
            verb = "is" if number == 1 else "are"
            texts.append(f"{number} of {num_frames} frames {verb} damaged{where}")
        if self.lost:
            texts.append(f"{self.lost} packets could not be decoded and are left out")
        return texts


class VideoReader:
    """The frames of a video, in order of display; iterated over once.

    Opening it decodes the first frame, as what headers say is not reliable.

    Args:
      source: what to open.

    Raises:
      PredictError: no video, cut off, or too large; names it.
    """

    def __init__(self, source: Input):
        self.fps: Fraction | None = None  # frames a second; None: it does not say
        self.pixel_aspect = Fraction(1)  # width by height of a pixel, once upright
        self.said_frames: int | None = None  # by its headers, which may be wrong
        self._name = source.name
        self._found, self._count = _Damage(), 0
        self._gaps = _Gaps() if source.live else None
        self._frames = self._decode(source)
        first = next(self._frames, None)
        if first is None:
            raise PredictError(f"{source.name}: no frame could be decoded")
        self.height, self.width = _upright_size(first, source.name)  # pixels
        if _orientation(first, source.name).transpose:
            self.pixel_aspect = 1 / self.pixel_aspect
        self._first: "VideoFrame | None" = first

    @property
    def damage(self) -> str | None:
        """What is damaged or missing among the frames so far, one line; None: nothing.

        Of a file gaps between frames say nothing: many have no constant rate.
        """
        texts = self._found.texts(self._count)
        if self._gaps is not None and self._gaps.missing:
            count, first = self._gaps.missing, self._gaps.first
            texts.append(
                f"the times of its frames leave room for {count} more, the first after"
                f" number {first}: they may have been dropped before they came"
            )
        return "; ".join(texts) or None

    def __iter__(self) -> Iterator[Frame]:
        """Yields the frames.

        Raises:
          PredictError: a frame has another size than the first, or reading fails.
        """
        first, self._first = self._first, None
        if first is None:
            return
        begin = first.time
        frames = itertools.chain([first], self._frames)
        for number, frame in enumerate(frames):
            where = f"{self._name}, frame {number}"
            size = _upright_size(frame, self._name)
            check_same_size(where, size, (self.height, self.width))
            pixels = frame.to_ndarray(format="rgb24")
            pixels = _orientation(frame, self._name).apply(pixels)
            seconds = float(number / (self.fps or 1))
            if frame.time is not None and begin is not None:
                seconds = float(frame.time - begin)
                if self._gaps is not None:
                    self._gaps.add(number, seconds)
            self._count = number + 1
            yield Frame(np.ascontiguousarray(pixels), seconds)

    def close(self) -> None:
        """Closes a video that is not read to its end."""
        self._frames.close()

    def _decode(self, source: Input) -> Generator["VideoFrame", None, None]:
        """The decoded frames as PyAV gives them; adds to `_found`."""
        import av

        num_frames = 0
        try:
            with _open(source) as container:
                stream = _stream(source, container)
                self.fps = stream.average_rate or stream.guessed_rate or None
                if not source.live:
                    self.said_frames = _said_frames(container, stream)
                # Also 0 and None stand for a shape that is not known.
                self.pixel_aspect = stream.sample_aspect_ratio or Fraction(1)
                for packet in _packets(container, stream):
                    self._found.packets += packet.is_corrupt
                    try:
                        frames = cast("list[VideoFrame]", packet.decode())
                    except av.InvalidDataError:
                        self._found.lost += 1
                        continue
                    for frame in frames:
                        if frame.is_corrupt:
                            self._found.add(num_frames)
                        yield frame
                        num_frames += 1
        except (av.FFmpegError, OSError) as error:
            raise PredictError(
                f"{source.name}: not a readable video (after {num_frames} frames):"
                f" {error}"
            ) from error


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


def _open(source: Input) -> "InputContainer":
    import av

    # Titles are in any code.
    container = av.open(
        source.file,
        format=source.format,
        options=dict(source.options) | {"protocol_whitelist": source.protocols},
        metadata_errors="replace",
        timeout=source.wait,
    )
    return cast("InputContainer", container)


def _stream(source: Input, container: "InputContainer") -> "VideoStream":
    """The first video stream that is no picture attached to sound, checked."""
    from av.stream import Disposition

    pictures = Disposition.attached_pic | Disposition.timed_thumbnails
    streams = [x for x in container.streams.video if not x.disposition & pictures]
    if not streams:
        raise PredictError(f"{source.name}: has no video stream")
    stream = streams[0]
    if stream.codec_context is None:
        raise PredictError(f"{source.name}: its video codec is unknown")
    # Threads that decode a frame each hold frames back.
    stream.thread_type = "SLICE" if source.live else "AUTO"
    check_bounds(source.name, stream.height, stream.width)
    if source.path is not None:
        check_complete(source.path, stream)
    return stream


def _said_frames(container: "InputContainer", stream: "VideoStream") -> int | None:
    """Frames by the index of a file, or by its length in time."""
    if stream.frames > 0:
        return stream.frames
    rate = stream.average_rate or stream.guessed_rate
    if container.duration is None or container.duration <= 0 or not rate:
        return None
    return max(1, round(container.duration / 1_000_000 * rate))


def _packets(container: "InputContainer", stream: "VideoStream") -> "Iterator[Packet]":
    import av

    while True:
        try:
            yield from container.demux(stream)
            return
        except av.BlockingIOError:  # of a device, as on macOS
            time.sleep(_PAUSE)


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


def _orientation(frame: "VideoFrame", name: str) -> _Orientation:
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
        f"{name}: display matrix: expected quarter turns and mirroring, got {matrix}"
    )


def _upright_size(frame: "VideoFrame", name: str) -> tuple[int, int]:
    if _orientation(frame, name).transpose:
        return frame.width, frame.height
    return frame.height, frame.width
