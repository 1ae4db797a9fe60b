"""The masks of a video on disk, as run lengths: memory holds where they are."""

import os
import tempfile
import weakref
from array import array
from bisect import bisect_left
from collections.abc import Sequence
from typing import overload

from vis_jax.metrics.disk import naming


class Spill:
    """A temporary file that bytes are appended to.

    It has no name once it is open, so that nothing is left of it when it is closed or
    forgotten, or when the process is killed.

    Args:
      folder: where the space is taken; None for the folder of temporary files.

    Raises:
      OSError: the file cannot be made; names it.
    """

    def __init__(self, folder: str | os.PathLike | None = None):
        self._file, self.path = tempfile.mkstemp(".masks", "vis_jax-", folder)
        os.unlink(self.path)
        self.size = 0
        self._close = weakref.finalize(self, os.close, self._file)

    def append(self, data: bytes) -> int:
        """Writes at the end.

        Returns:
          Where it begins, in bytes.

        Raises:
          OSError: it cannot be written, as on a full disk; names the file.
        """
        start, rest = self.size, memoryview(data)
        with naming(self.path):
            while rest:
                rest = rest[
                    os.pwrite(self._checked(), rest, start + len(data) - len(rest)) :
                ]
        self.size += len(data)
        return start

    def read(self, start: int, length: int) -> bytes:
        """What was written there.

        Raises:
          OSError: it cannot be read; names the file.
        """
        with naming(self.path):
            return os.pread(self._checked(), length, start)

    def close(self) -> None:
        """Gives the space back; nothing can be read any more."""
        self._close()

    def _checked(self) -> int:
        if not self._close.alive:
            raise ValueError(f"{self.path}: the masks of this video are closed")
        return self._file


class TrackIndex:
    """Where the run lengths of one track are: 16 bytes a frame."""

    def __init__(self) -> None:
        self.frames = array("I")  # increasing
        self._starts = array("Q")
        self._lengths = array("I")

    def add(self, frame: int, start: int, length: int) -> None:
        """The mask of a later frame than all before."""
        self.frames.append(frame)
        self._starts.append(start)
        self._lengths.append(length)

    def find(self, frame: int) -> tuple[int, int] | None:
        """Where the mask of a frame begins, and its length; None if there is none."""
        place = bisect_left(self.frames, frame)
        if place == len(self.frames) or self.frames[place] != frame:
            return None
        return self._starts[place], self._lengths[place]


class TrackMasks(Sequence[dict]):
    """Run lengths of one track, one for each frame of the video, read when asked for.

    Args:
      spill: what holds them.
      index: where they are.
      num_frames: of the video.
      empty: run lengths of a frame without the track; the others have its size.
    """

    def __init__(self, spill: Spill, index: TrackIndex, num_frames: int, empty: dict):
        self._spill, self._index = spill, index
        self._num_frames, self._empty = num_frames, empty

    def __len__(self) -> int:
        return self._num_frames

    @overload
    def __getitem__(self, key: int) -> dict: ...

    @overload
    def __getitem__(self, key: slice) -> list[dict]: ...

    def __getitem__(self, key: int | slice) -> dict | list[dict]:
        frames = range(self._num_frames)[key]
        if isinstance(frames, int):
            return self._read(frames)
        return [self._read(frame) for frame in frames]

    def _read(self, frame: int) -> dict:
        place = self._index.find(frame)
        if place is None:
            return self._empty
        return {"size": self._empty["size"], "counts": self._spill.read(*place)}
