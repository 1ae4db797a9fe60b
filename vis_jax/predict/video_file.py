"""Decodes video with FFmpeg: upright frames, and a count of the damaged ones."""

import contextlib
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

from data_pipeline.images import MAX_SIDE
from vis_jax.formats.rle import MAX_PIXELS
from vis_jax.predict import hdr
from vis_jax.predict.complete import check_complete, truncation
from vis_jax.predict.errors import PredictError
from vis_jax.predict.orientation import orientation, upright_size
from vis_jax.predict.part import WHOLE_VIDEO, Part

if TYPE_CHECKING:
    from av import Packet, VideoFrame
    from av.container import InputContainer
    from av.video.stream import VideoStream

_PAUSE = 0.005  # seconds between polls of a device without a frame yet
# Gaps in live video: the usual interval is estimated from the last frames, ..
_TIMES = 32
_LEAST_TIMES = 6  # .. at least from these, and a gap is longer by ..
_GAP = 1.5  # .. more than this factor.


class DecodedFrame(NamedTuple):
    """A decoded frame and its display time."""

    pixels: np.ndarray  # uint8 [H, W, 3], RGB, upright
    seconds: float  # since the first frame


@runtime_checkable
class Bytes(Protocol):
    """A file object for FFmpeg; seekable if it also has `seek` and `tell`."""

    def read(self, size: int, /) -> bytes:
        """Reads up to `size` bytes; empty at the end."""
        ...


class Input(NamedTuple):
    """An input for FFmpeg and how to open it."""

    name: str  # for messages
    file: str | Bytes  # an address, or the content
    # Protocols it may open, e.g. from a playlist, separated by commas.
    protocols: str = "file"
    path: Path | None = None  # file to check for truncation
    format: str | None = None  # None: detected from the content
    options: tuple[tuple[str, str], ...] = ()  # FFmpeg options, by name
    live: bool = False  # decode without delay: no frame threading
    wait: float | None = None  # timeout in seconds; None: unlimited


class _Gaps:
    """Estimates missing frames from the times of the received ones."""

    def __init__(self) -> None:
        self.missing = 0  # frames that would fit into the gaps
        self.first: int | None = None  # the number of the frame before the first gap
        self._times: deque[float] = deque(maxlen=_TIMES)  # seconds of the last frames

    def add(self, number: int, seconds: float) -> None:
        """Adds the next frame."""
        if len(self._times) >= _LEAST_TIMES:
            interval, usual = seconds - self._times[-1], self._usual()
            if 0 < _GAP * usual < interval:
                self.missing += round(interval / usual) - 1
                self.first = number - 1 if self.first is None else self.first
        self._times.append(seconds)

    def _usual(self) -> float:
        """Returns the median frame interval in seconds.

        It is averaged over two intervals, as long and short ones may alternate.
        """
        times = list(self._times)
        return statistics.median(
            (after - before) / 2
            for before, after in zip(times, times[2:], strict=False)
        )


@dataclass
class _Damage:
    """Damage reported by the decoder."""

    frames: int = 0  # flagged as damaged
    first: int | None = None  # the number of the first of them
    packets: int = 0  # flagged as damaged
    lost: int = 0  # packets that failed to decode

    def add(self, number: int) -> None:
        """Adds a damaged frame."""
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
    """Iterates once over the frames of a video, in display order.

    Opening decodes the first frame, as headers are unreliable.

    Args:
      source: the input.
      part: part of the video to read.

    Raises:
      PredictError: not a video, truncated, too large, or an empty part; names it.
    """

    def __init__(self, source: Input, part: Part = WHOLE_VIDEO) -> None:
        self.fps: Fraction | None = None  # frames per second; None: not stated
        self.pixel_aspect = Fraction(1)  # width / height of an upright pixel
        self.said_frames: int | None = None  # by its headers, which may be wrong
        self.sound_codec: str | None = None  # None: there is no sound
        self.transfer: int | None = None  # HDR transfer; None: standard dynamic range
        self._name = source.name
        self._found, self._count, self._decoded = _Damage(), 0, 0
        self._gaps = _Gaps() if source.live else None
        self._frames = self._decode(source, part)
        first = next(self._frames, None)
        if first is None:
            what = "no frame could be decoded"
            if self._decoded:
                what = f"has no frame {part.when()}"
            raise PredictError(f"{source.name}: {what}")
        # Presentation time in the file, in seconds; None: it has no times.
        self.begin = first.time
        self.height, self.width = upright_size(first, source.name)  # pixels
        if orientation(first, source.name).transpose:
            self.pixel_aspect = 1 / self.pixel_aspect
        self._first: "VideoFrame | None" = first

    @property
    def damage(self) -> str | None:
        """Damaged or missing frames so far, in one line; None if there are none.

        In a file, gaps are not reported: many files have a variable frame rate.
        """
        texts = self._found.texts(self._count)
        if self._gaps is not None and self._gaps.missing:
            count, first = self._gaps.missing, self._gaps.first
            texts.append(
                f"frame times have room for {count} more, the first after number"
                f" {first}: they may have been dropped on the way"
            )
        return "; ".join(texts) or None

    def __iter__(self) -> Iterator[DecodedFrame]:
        """Yields the frames.

        Raises:
          PredictError: a frame differs in size from the first, or reading fails.
        """
        first, self._first = self._first, None
        if first is None:
            return
        begin = first.time
        frames = itertools.chain([first], self._frames)
        for number, frame in enumerate(frames):
            where = f"{self._name}, frame {number}"
            size = upright_size(frame, self._name)
            check_same_size(where, size, (self.height, self.width))
            pixels = _pixels(frame, self.transfer)
            pixels = orientation(frame, self._name).apply(pixels)
            seconds = float(number / (self.fps or 1))
            if frame.time is not None and begin is not None:
                seconds = float(frame.time - begin)
                if self._gaps is not None:
                    self._gaps.add(number, seconds)
            self._count = number + 1
            yield DecodedFrame(np.ascontiguousarray(pixels), seconds)

    def close(self) -> None:
        """Closes a video before its end."""
        self._frames.close()

    def _decode(self, source: Input, part: Part) -> Generator["VideoFrame", None, None]:
        """Yields the PyAV frames of a part; records damage in `_found`."""
        import av

        try:
            with _open(source) as container:
                stream = _stream(source, container)
                self.fps = stream.average_rate or stream.guessed_rate or None
                if not source.live:
                    self.said_frames = _said_frames(container, stream)
                    sounds = container.streams.audio
                    self.sound_codec = sounds[0].codec_context.name if sounds else None
                begin = _seek(container, stream, part.start)
                # 0 and None also stand for an unknown aspect ratio.
                self.pixel_aspect = stream.sample_aspect_ratio or Fraction(1)
                frames = self._timed(_packets(container, stream), begin)
                for _, frame in part.chosen(frames):
                    # Transfer function of the current frame.
                    transfer = stream.codec_context.color_trc
                    self.transfer = transfer if transfer in hdr.NAMES else None
                    yield frame
        except (av.FFmpegError, OSError) as error:
            after = f" (after {self._decoded} frames)" if self._decoded else ""
            cause = _cause(source, error)
            raise PredictError(
                f"{source.name}: not a readable video{after}: {cause}"
            ) from error

    def _timed(
        self, packets: "Iterator[Packet]", begin: float | None
    ) -> "Iterator[tuple[float, VideoFrame]]":
        """Decodes packets; yields each frame with its seconds since the first.

        Args:
          packets: video packets.
          begin: time of the first frame of the video; None: it is the next one.
        """
        import av

        for packet in packets:
            self._found.packets += packet.is_corrupt
            try:
                frames = cast("list[VideoFrame]", packet.decode())
            except av.InvalidDataError:
                self._found.lost += 1
                continue
            for frame in frames:
                if frame.is_corrupt:
                    self._found.add(self._decoded)
                seconds = float(self._decoded / (self.fps or 1))
                if frame.time is not None:
                    begin = frame.time if begin is None else begin
                    seconds = float(frame.time - begin)
                self._decoded += 1
                yield seconds, frame


def _cause(source: Input, error: Exception) -> str:
    """Returns why an input cannot be read, in a user's words where possible."""
    import av

    content = isinstance(error, av.InvalidDataError | av.EOFError)
    if content and source.path is not None:
        if not source.path.stat().st_size:
            return "the file is empty"
        if text := truncation(source.path):
            return text
    return getattr(error, "strerror", None) or str(error)


def check_same_size(
    where: str, size: tuple[int, int], expected: tuple[int, int]
) -> tuple[int, int]:
    """Returns `size` (height, width) if it equals that of the first frame."""
    if size != expected:
        raise PredictError(
            f"{where}: expected the size of the first frame, {expected[0]} x"
            f" {expected[1]} (height x width), got {size[0]} x {size[1]}"
        )
    return size


def check_bounds(where: str, height: int, width: int) -> None:
    """Raises PredictError for frames larger than masks can be."""
    if max(height, width) > MAX_SIDE or height * width > MAX_PIXELS:
        raise PredictError(
            f"{where}: expected frames of at most {MAX_SIDE} pixels a side and"
            f" {MAX_PIXELS} in all, got {height} x {width} (height x width)"
        )


def _open(source: Input) -> "InputContainer":
    import av

    # Titles may have any encoding.
    container = av.open(
        source.file,
        format=source.format,
        options=dict(source.options) | {"protocol_whitelist": source.protocols},
        metadata_errors="replace",
        timeout=source.wait,
    )
    return cast("InputContainer", container)


def _stream(source: Input, container: "InputContainer") -> "VideoStream":
    """Returns the first video stream that is not cover art, after checks."""
    from av.stream import Disposition

    pictures = Disposition.attached_pic | Disposition.timed_thumbnails
    streams = [x for x in container.streams.video if not x.disposition & pictures]
    if not streams:
        raise PredictError(f"{source.name}: has no video stream")
    stream = streams[0]
    if stream.codec_context is None:
        raise PredictError(f"{source.name}: its video codec is unknown")
    # Frame threading delays frames.
    stream.thread_type = "SLICE" if source.live else "AUTO"
    check_bounds(source.name, stream.height, stream.width)
    if source.path is not None:
        check_complete(source.path, stream)
    return stream


def _said_frames(container: "InputContainer", stream: "VideoStream") -> int | None:
    """Returns the number of frames by the file's index, or by its duration."""
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
        except av.BlockingIOError:  # from a capture device, e.g. on macOS
            time.sleep(_PAUSE)


def _seek(
    container: "InputContainer", stream: "VideoStream", start: float
) -> float | None:
    """Seeks to the keyframe at or before a time.

    Returns:
      Presentation time of the video's first frame, in seconds; None without a seek.
    """
    import av

    base = stream.time_base
    if start <= 0 or stream.start_time is None or base is None:
        return None
    with contextlib.suppress(av.FFmpegError):  # not seekable: decodes from the start
        container.seek(stream.start_time + int(start / base), stream=stream)
    return float(stream.start_time * base)


def _pixels(frame: "VideoFrame", transfer: int | None) -> np.ndarray:
    """Returns the frame as RGB uint8 [H, W, 3], tone-mapped if it is HDR."""
    if transfer is None:
        return frame.to_ndarray(format="rgb24")
    return hdr.to_ordinary(frame.to_ndarray(format="rgb48le"), transfer)
