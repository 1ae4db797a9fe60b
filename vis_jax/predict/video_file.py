"""Frames that FFmpeg decodes: upright, and with a count of those that are damaged."""

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
from vis_jax.predict.complete import check_complete
from vis_jax.predict.errors import PredictError
from vis_jax.predict.orientation import orientation, upright_size
from vis_jax.predict.part import WHOLE_VIDEO, Part

if TYPE_CHECKING:
    from av import Packet, VideoFrame
    from av.container import InputContainer
    from av.video.stream import VideoStream

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
      part: what of it is read.

    Raises:
      PredictError: no video, cut off, too large, or nothing in that part; names it.
    """

    def __init__(self, source: Input, part: Part = WHOLE_VIDEO) -> None:
        self.fps: Fraction | None = None  # frames a second; None: it does not say
        self.pixel_aspect = Fraction(1)  # width by height of a pixel, once upright
        self.said_frames: int | None = None  # by its headers, which may be wrong
        self.sound_codec: str | None = None  # None: there is no sound
        self.transfer: int | None = None  # of high dynamic range; None: of ordinary
        self._name = source.name
        self._found, self._count, self._decoded = _Damage(), 0, 0
        self._gaps = _Gaps() if source.live else None
        self._frames = self._decode(source, part)
        first = next(self._frames, None)
        if first is None:
            what = "no frame could be decoded"
            if part.start and self._decoded:
                what = f"has no frame at {part.start:g} s or later"
            raise PredictError(f"{source.name}: {what}")
        # By the clock of the file, in seconds; None: it has no times.
        self.begin = first.time
        self.height, self.width = upright_size(first, source.name)  # pixels
        if orientation(first, source.name).transpose:
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
            yield Frame(np.ascontiguousarray(pixels), seconds)

    def close(self) -> None:
        """Closes a video that is not read to its end."""
        self._frames.close()

    def _decode(self, source: Input, part: Part) -> Generator["VideoFrame", None, None]:
        """The decoded frames of a part as PyAV gives them; adds to `_found`."""
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
                # Also 0 and None stand for a shape that is not known.
                self.pixel_aspect = stream.sample_aspect_ratio or Fraction(1)
                frames = self._timed(_packets(container, stream), begin)
                for _, frame in part.chosen(frames):
                    transfer = stream.codec_context.color_trc  # of the frame just read
                    self.transfer = transfer if transfer in hdr.NAMES else None
                    yield frame
        except (av.FFmpegError, OSError) as error:
            raise PredictError(
                f"{source.name}: not a readable video (after {self._decoded} frames):"
                f" {error}"
            ) from error

    def _timed(
        self, packets: "Iterator[Packet]", begin: float | None
    ) -> "Iterator[tuple[float, VideoFrame]]":
        """The frames of packets, each with its seconds since the first one.

        Args:
          packets: of the video.
          begin: time of its first frame; None: what comes is the first one.
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
                yield seconds, frame
                self._decoded += 1


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


def _seek(
    container: "InputContainer", stream: "VideoStream", start: float
) -> float | None:
    """Goes to a frame at or before a time that can be decoded by itself.

    Returns:
      Seconds of the first frame of the video by its clock; None if nothing is skipped.
    """
    import av

    base = stream.time_base
    if start <= 0 or stream.start_time is None or base is None:
        return None
    with contextlib.suppress(av.FFmpegError):  # then all frames before are decoded
        container.seek(stream.start_time + int(start / base), stream=stream)
    return float(stream.start_time * base)


def _pixels(frame: "VideoFrame", transfer: int | None) -> np.ndarray:
    """uint8 [H, W, 3], RGB of ordinary video."""
    if transfer is None:
        return frame.to_ndarray(format="rgb24")
    return hdr.to_ordinary(frame.to_ndarray(format="rgb48le"), transfer)
