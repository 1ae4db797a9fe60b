"""Output sinks: a video file, images of track ids."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, cast

import numpy as np
from PIL import Image

from vis_jax.formats.disk import naming
from vis_jax.predict.sound import Sound, SoundCopy
from vis_jax.visualize.colours import palette

if TYPE_CHECKING:
    from av.video.stream import VideoStream

CODECS = ("libx264", "mpeg4")  # the first one available in PyAV is used
CODEC_OPTIONS = {
    "libx264": {"crf": "18", "preset": "veryfast"},
    "mpeg4": {"qscale": "3"},
}
ITU_BT_709 = 1  # H.273 code of its matrix, primaries and transfer alike
LIMITED_RANGE = 1
_TICKS = 10_000  # approximate time-base ticks per second
MOST_TICKS = {"mpeg4": 65_535}  # limit of ticks, over the denominator of the rate


class VideoSink:
    """Encodes frames into an mp4 file, one at a time. A context manager."""

    def __init__(
        self,
        path: Path,
        *,
        fps: Fraction,
        height: int,
        width: int,
        pixel_aspect: Fraction = Fraction(1),
        sound: Sound | None = None,
    ) -> None:
        """Opens the file.

        Args:
          path: ends in .mp4.
          fps: frames per second; approximate if frames have their own times.
          height, width: frame size in pixels. Odd sizes are padded by a row at the
            bottom or a column on the right, as 4:2:0 video needs even sizes.
          pixel_aspect: displayed width / height of a pixel. Ignored if the format
            cannot hold the ratio (over 255).
          sound: copied without re-encoding, from the time of the first frame to the
            end of the last one.
        """
        import av

        self._size = (height, width)
        codec = next(name for name in CODECS if name in av.codecs_available)
        # FFmpeg would read a relative path up to a colon as a protocol.
        self._container = av.open(str(path.absolute()), "w", format="mp4")
        try:
            # MPEG-4 stores the time base in 16 bits.
            rate, options = fps.limit_denominator(1001), CODEC_OPTIONS[codec]
            self._rate, self._last, self._count = rate, -1, 0
            # Makes frame times at this rate integers.
            most = MOST_TICKS.get(codec, 1 << 30) // rate.numerator
            self._base = 1 / (rate * max(1, min(most, round(_TICKS / rate))))
            stream = self._container.add_stream(codec, rate=rate, options=options)
            self._stream = cast("VideoStream", stream)
            self._stream.height = height + height % 2
            self._stream.width = width + width % 2
            self._stream.pix_fmt = "yuv420p"
            context = self._stream.codec_context
            context.time_base = self._base
            _tag_colours(self._stream)
            if pixel_aspect != 1:
                context.sample_aspect_ratio = pixel_aspect
            self._sound = SoundCopy(sound, self._container) if sound else None
        except BaseException:
            self._container.close()
            raise

    def write(self, frame: np.ndarray, seconds: float | None = None) -> None:
        """Appends a frame.

        Args:
          frame: uint8 [H, W, 3], RGB.
          seconds: display time since the first frame; None: at the constant rate.
        """
        import av
        from av.video.reformatter import ColorRange, Colorspace

        height, width = self._size
        padding = ((0, height % 2), (0, width % 2), (0, 0))
        padded = np.pad(frame, padding, mode="edge")
        image = av.VideoFrame.from_ndarray(padded, format="rgb24").reformat(
            format="yuv420p",
            dst_colorspace=Colorspace.ITU709,
            dst_color_range=ColorRange.MPEG,
        )
        if seconds is None:
            seconds = float(self._count / self._rate)
        self._count += 1
        self._last = max(round(seconds / self._base), self._last + 1)
        image.pts, image.time_base = self._last, self._base
        if self._sound is not None:
            self._sound.copy_until(seconds)
        self._container.mux(self._stream.encode(image))

    def __enter__(self) -> "VideoSink":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if error is None:
                self._container.mux(self._stream.encode(None))
                if self._sound is not None:
                    end = float(self._last * self._base + 1 / self._rate)
                    self._sound.copy_until(end)
        finally:
            if self._sound is not None:
                self._sound.close()
            self._container.close()


def _tag_colours(stream: "VideoStream") -> None:
    """Tags BT.709, as some players assume BT.601 for untagged video."""
    context = stream.codec_context
    context.colorspace = context.color_primaries = ITU_BT_709
    context.color_trc = ITU_BT_709
    context.color_range = LIMITED_RANGE


def id_map(
    masks: np.ndarray,
    track_ids: Sequence[int] | np.ndarray,
    scores: Sequence[float] | np.ndarray,
) -> np.ndarray:
    """Draws masks as a map of track ids; where they overlap, the higher score wins.

    Args:
      masks: bool [N, H, W].
      track_ids: N numbers, 1, 2, ..
      scores: N numbers.

    Returns:
      int32 [H, W], 0 = background.
    """
    ids = np.zeros(masks.shape[1:], np.int32)
    for i in np.argsort(np.asarray(scores), kind="stable"):
        ids[masks[i]] = track_ids[i]
    return ids


class IdSink:
    """Writes images of track ids as PNGs whose values are the ids.

    If no id of the video exceeds 255, images have 8 bits and a palette with the colours
    of the drawn video; otherwise they are 16-bit greyscale.

    Args:
      folder: output folder, created.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._count = self._coloured = 0
        self._largest = 0
        folder.mkdir()

    def write(self, ids: np.ndarray) -> None:
        """Writes the next image.

        Args:
          ids: int [H, W], 0 = background.

        Raises:
          ValueError: an id is over 65535.
          OSError: it cannot be written, e.g. the disk is full; names the file.
        """
        path = self._path(self._count)
        self._largest = max(self._largest, int(ids.max(initial=0)))
        if self._largest > 65_535:
            raise ValueError(
                f"{path}: expected track ids up to 65535, got {self._largest}"
            )
        if self._largest > 255:
            image = Image.fromarray(ids.astype(np.uint16))
        else:
            image = Image.fromarray(ids.astype(np.uint8))
            image.putpalette(palette(256).tobytes())
            self._coloured = self._count + 1
        with naming(path):
            image.save(path)
        self._count += 1

    def close(self) -> None:
        """Converts all images to 16 bits if one needs them."""
        if self._largest <= 255:
            return
        for number in range(self._coloured):
            path = self._path(number)
            with Image.open(path, formats=("PNG",)) as image:
                ids = np.asarray(image).astype(np.uint16)
            with naming(path):
                Image.fromarray(ids).save(path)

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:05d}.png"
