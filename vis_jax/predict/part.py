"""Which frames of a video are read: from a time, to a time, every n-th."""

import math
import re
from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import NamedTuple, TypeVar

T = TypeVar("T")
_SLACK = 1e-3  # seconds: times of frames are rounded


class Part(NamedTuple):
    """A part of a video; times are seconds since its first frame."""

    start: float = 0.0  # of the first frame that is read, or just before it
    end: float | None = None  # what is shown from here on is not read
    every: int = 1  # one of so many frames is read

    def rate(self, fps: Fraction) -> Fraction:
        """Frames a second of the part, where the video has `fps`."""
        return fps / self.every

    def frames_of(self, frames: int | None, fps: Fraction) -> int | None:
        """How many of so many frames are read, if the rate is constant."""
        if frames is None or self == WHOLE_VIDEO:
            return frames
        end = frames if self.end is None else math.ceil((self.end - _SLACK) * fps)
        first = math.ceil((self.start - _SLACK) * fps)
        return max(0, math.ceil((min(end, frames) - max(first, 0)) / self.every))

    def chosen(self, frames: Iterable[tuple[float, T]]) -> Iterator[tuple[float, T]]:
        """Those of the frames, each with its time, that are read."""
        count = 0
        for seconds, frame in frames:
            if seconds < self.start - _SLACK:
                continue
            if self.end is not None and seconds >= self.end - _SLACK:
                return
            if count % self.every == 0:
                yield seconds, frame
            count += 1


WHOLE_VIDEO = Part()


def read_part(start: str | None, end: str | None, every: int) -> Part:
    """The part that three flags ask for.

    Args:
      start, end: seconds, mm:ss or hh:mm:ss; None: the whole video.
      every: one of so many frames.

    Raises:
      ValueError: it is no such time or number; names the flag.
    """
    begin = 0.0 if start is None else _seconds("--start", start)
    until = None if end is None else _seconds("--end", end)
    if until is not None and until <= begin:
        raise ValueError(f"--end: expected a time after --start, {start}, got {end}")
    if every < 1:
        raise ValueError(f"--every: expected 1 or more, got {every}")
    return Part(begin, until, every)


def _seconds(name: str, text: str) -> float:
    """Seconds of "90", "90.5", "1:30" or "00:01:30"."""
    found = re.fullmatch(r"(?:(?:(\d+):)?(\d+):)?(\d+(?:\.\d*)?)", text.strip())
    if found is None:
        raise ValueError(f"{name}: expected seconds or hh:mm:ss, got {text}")
    hours, minutes, seconds = (float(group or 0) for group in found.groups())
    return 3600 * hours + 60 * minutes + seconds
