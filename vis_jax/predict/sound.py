"""Copies the audio of a video without re-encoding."""

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from absl import logging

if TYPE_CHECKING:
    from av import Packet
    from av.container import OutputContainer

MP4_CODECS = ("aac", "ac3", "alac", "eac3", "flac", "mp2", "mp3", "opus")


class Sound(NamedTuple):
    """Audio stream of a video file."""

    path: str  # absolute, of the file
    codec: str  # FFmpeg name
    begin: float  # presentation time of the first frame in the file, in seconds

    @property
    def fits(self) -> bool:
        """Whether mp4 supports the codec."""
        return self.codec in MP4_CODECS


class SoundCopy:
    """Copies audio into a file, in step with its frames.

    Args:
      sound: audio to copy; `fits` must hold.
      container: output, still empty.
    """

    def __init__(self, sound: Sound, container: "OutputContainer") -> None:
        import av

        self._container, self._begin = container, sound.begin
        self._path = sound.path
        self._input = av.open(
            sound.path,
            options={"protocol_whitelist": "file"},
            metadata_errors="replace",
        )
        try:
            source = self._input.streams.audio[0]
            self._target = container.add_stream_from_template(source)
            with contextlib.suppress(av.FFmpegError):  # else read from the start
                self._input.seek(int(sound.begin * av.time_base))
            self._packets: Iterator[Packet] = self._input.demux(source)
        except BaseException:
            self._input.close()
            raise
        self._next: Packet | None = None

    def copy_until(self, seconds: float) -> None:
        """Writes the audio before a time, in seconds since the first frame.

        Audio that cannot be read or copied ends early, with a warning.
        """
        import av

        try:
            self._copy_until(seconds)
        except (av.InvalidDataError, av.ArgumentError) as error:
            self._packets, self._next = iter(()), None
            logging.warning(
                "%s: its sound ends before %g s: %s", self._path, seconds, error
            )

    def _copy_until(self, seconds: float) -> None:
        while True:
            packet = self._next or next(self._packets, None)
            self._next = None
            if packet is None:
                return
            if packet.pts is None or packet.dts is None:  # flush packet at the end
                continue
            base = packet.time_base
            if packet.pts * base - self._begin >= seconds:
                self._next = packet
                return
            shift = round(self._begin / base)
            if packet.pts < shift:
                continue
            packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
            packet.stream = self._target
            self._container.mux(packet)

    def close(self) -> None:
        """Closes the input file."""
        self._input.close()
