"""Selects part of a video: start time, end time, every n-th frame."""

import math
import re
from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import NamedTuple, TypeVar

T = TypeVar("T")
_SLACK = 1e-3  # seconds, as frame times are rounded


class Part(NamedTuple):
    """A part of a video; times are seconds since its first frame."""

    start: float = 0.0  # frames before it are skipped
    end: float | None = None  # exclusive
    every: int = 1  # every n-th frame is read

    def rate(self, fps: Fraction) -> Fraction:
        """Returns the frame rate of the part of a video with rate `fps`."""
        return fps / self.every

    def when(self) -> str:
        """Describes the times, for errors: "at 9 s or later"."""
        if self.end is None:
            return f"at {self.start:g} s or later"
        return f"from {self.start:g} s to before {self.end:g} s"

    def frames_of(self, frames: int | None, fps: Fraction) -> int | None:
        """Returns the number of frames read, assuming a constant frame rate."""
        if frames is None or self == WHOLE_VIDEO:
            return frames
        end = frames if self.end is None else math.ceil((self.end - _SLACK) * fps)
        first = math.ceil((self.start - _SLACK) * fps)
        return max(0, math.ceil((min(end, frames) - max(first, 0)) / self.every))

    def chosen(self, frames: Iterable[tuple[float, T]]) -> Iterator[tuple[float, T]]:
        """Yields the selected (time, frame) pairs."""
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
    """Parses the part given by three flags.

    Args:
      start, end: seconds, mm:ss or hh:mm:ss; None: the whole video.
      every: read every n-th frame.

    Raises:
      ValueError: a time or number is invalid; names the flag.
    """
    begin = 0.0 if start is None else _seconds("--start", start)
    until = None if end is None else _seconds("--end", end)
    if until is not None and until <= begin:
        raise ValueError(
            f"--end: expected a time after --start, {start or 0}, got {end}"
        )
    if every < 1:
        raise ValueError(f"--every: expected 1 or more, got {every}")
    return Part(begin, until, every)


def _seconds(name: str, text: str) -> float:
    """Parses "90", "90.5", "1:30" or "00:01:30" as seconds."""
    found = re.fullmatch(r"(?:(?:(\d+):)?(\d+):)?(\d+(?:\.\d*)?)", text.strip())
    if found is None:
        raise ValueError(f"{name}: expected seconds or hh:mm:ss, got {text}")
    hours, minutes, seconds = (float(group or 0) for group in found.groups())
    return 3600 * hours + 60 * minutes + seconds
