"""Live sources: standard input, a camera, a network stream.

They can be read only once and have unknown length. An error ends the video with a
warning; earlier frames are kept.
"""

import os
import select
import stat
import sys
import threading
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from vis_jax.predict import hdr
from vis_jax.predict.errors import PredictError
from vis_jax.predict.source import FOLDER_FPS, Source
from vis_jax.predict.video_file import DecodedFrame, Input, VideoReader, check_bounds

CAMERA, STDIN = "camera:", "-"


class Address(NamedTuple):
    """FFmpeg settings for a network stream."""

    protocols: str  # allowed, e.g. for redirects; never files
    options: tuple[tuple[str, str], ...] = ()


_HTTP = Address("http,https,tcp,tls,crypto,data")
# TCP first: packets lost over UDP leave holes in the picture.
_RTSP = Address("rtsp,rtp,udp,tcp,tls", (("rtsp_flags", "prefer_tcp"),))
# By prefix of the address.
URLS = {"http://": _HTTP, "https://": _HTTP, "rtsp://": _RTSP}
LIVE = (CAMERA, *URLS)
WAIT = 10.0  # seconds without data after which a stream has ended
_POLL = 0.1  # seconds between checks whether to stop reading


class Camera(NamedTuple):
    """FFmpeg settings for a capture device on one operating system."""

    format: str
    file: str  # with {} for what follows "camera:"
    options: tuple[tuple[str, str], ...] = ()


CAMERAS = {
    "linux": Camera("v4l2", "/dev/video{}"),
    "darwin": Camera("avfoundation", "{}:none", (("framerate", "30"),)),
    "win32": Camera("dshow", "video={}"),
}


def open_live(
    name: str, *, raw: tuple[int, int] | None = None, fps: Fraction | None = None
) -> Source:
    """Opens a live source and waits for its first frame.

    Args:
      name: "-", "camera:0" or an address.
      raw: height and width in pixels of raw frames on standard input.
      fps: frames per second of raw frames; None: FOLDER_FPS.

    Raises:
      PredictError: it cannot be opened, or has no frame.
    """
    if name == STDIN:
        return from_pipe(0, raw=raw, fps=fps)
    if name.startswith(CAMERA):
        return _decoded(_camera(name), name.replace(":", ""))
    kind = next(found for start, found in URLS.items() if name.startswith(start))
    what = Input(name, name, kind.protocols, options=kind.options, live=True, wait=WAIT)
    return _decoded(what, name.rstrip("/").rsplit("/", 1)[-1].split("?")[0])


def _camera(name: str) -> Input:
    kind = CAMERAS.get(sys.platform)
    if kind is None:
        raise PredictError(f"{name}: no cameras are read on {sys.platform}")
    file = kind.file.format(name.removeprefix(CAMERA))
    options = kind.options
    return Input(name, file, "", None, kind.format, options, live=True, wait=WAIT)


def from_pipe(
    descriptor: int,
    *,
    raw: tuple[int, int] | None = None,
    fps: Fraction | None = None,
) -> Source:
    """Reads a video, or raw frames, from an open file such as standard input.

    Args:
      descriptor: open file descriptor.
      raw, fps: as in `open_live`.

    Raises:
      PredictError: it is a terminal, or has no frame.
    """
    name = "standard input" if descriptor == 0 else f"file {descriptor}"
    if os.isatty(descriptor):
        raise PredictError(f"{name}: expected a video, got a terminal")
    regular = stat.S_ISREG(os.fstat(descriptor).st_mode)
    pipe = _File(descriptor) if regular else _Pipe(descriptor)
    if raw is not None:
        return _raw(name, pipe, raw, fps or FOLDER_FPS)
    try:
        what = Input(name, pipe, "", live=not regular)
        return _decoded(what, "stdin", pipe.stop)
    except PredictError as error:
        if regular:
            raise
        hint = "the index of an mp4 on a pipe must come first, as with faststart"
        raise PredictError(f"{error}; {hint}") from error


class _Pipe:
    """Bytes written by another process. They end when the wait for them is stopped."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._stopped = threading.Event()

    def read(self, size: int) -> bytes:
        """Reads up to `size` bytes; empty at the end."""
        while not self._stopped.is_set():
            ready, _, _ = select.select([self._descriptor], [], [], _POLL)
            if ready:
                return os.read(self._descriptor, size)
        return b""

    def stop(self) -> None:
        """Ends the stream."""
        self._stopped.set()


class _File(_Pipe):
    """A seekable file in place of a pipe, so an index at its end can be read first."""

    def seek(self, place: int, whence: int = os.SEEK_SET) -> int:
        """Moves to a byte offset."""
        return os.lseek(self._descriptor, place, whence)

    def tell(self) -> int:
        """Returns the byte offset."""
        return self.seek(0, os.SEEK_CUR)


def _nothing() -> None:
    pass


def _decoded(what: Input, name: str, stop: Callable[[], None] = _nothing) -> Source:
    """Opens a source decoded by FFmpeg."""
    reader = VideoReader(what)
    warnings: list[str] = []
    ends: list[str] = []
    unread = [reader]

    def tell() -> None:
        damage = [f"{what.name}: {reader.damage}"] if reader.damage else []
        warnings[:] = [*ends, *damage]

    def read() -> Iterator[DecodedFrame]:
        if not unread:
            raise PredictError(f"{what.name}: can be read only once")
        try:
            yield from unread.pop()
        except PredictError as error:
            ends.append(f"{error}; the video ends there")
        tell()

    def end() -> None:
        # Most live videos end because the user stops waiting for the next frame.
        tell()
        stop()

    return Source(
        name=name or "stream",
        path=what.name,
        height=reader.height,
        width=reader.width,
        num_frames=None,
        fps=reader.fps or FOLDER_FPS,
        pixel_aspect=reader.pixel_aspect,
        dynamic_range=hdr.NAMES.get(reader.transfer or 0, ""),
        read=read,
        live=True,
        warnings=warnings,
        stop=end,
    )


def _raw(name: str, pipe: _Pipe, size: tuple[int, int], fps: Fraction) -> Source:
    """Opens a source of consecutive raw frames, 3 x height x width bytes each."""
    height, width = size
    check_bounds(name, height, width)
    warnings: list[str] = []

    def read() -> Iterator[DecodedFrame]:
        number = 0
        while True:
            data = bytearray()
            while len(data) < 3 * height * width:
                more = pipe.read(3 * height * width - len(data))
                if not more:
                    break
                data += more
            if len(data) < 3 * height * width:
                break
            pixels = np.frombuffer(data, np.uint8).reshape(height, width, 3)
            yield DecodedFrame(pixels, float(number / fps))
            number += 1
        if data:
            expected = f"expected {3 * height * width} bytes, got {len(data)}"
            warnings.append(f"{name}: frame {number}: {expected}; it is left out")

    return Source(
        name="stdin",
        path=name,
        height=height,
        width=width,
        num_frames=None,
        fps=fps,
        read=read,
        live=True,
        warnings=warnings,
        stop=pipe.stop,
    )
