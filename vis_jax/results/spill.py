"""Stores the RLE masks of a video on disk."""

import os
import tempfile
import weakref
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import NamedTuple, overload

from vis_jax.formats.disk import naming

# Masks of a track per index block: 4 KiB on disk.
_BLOCK = 256


class Spill:
    """Append-only temporary file.

    The file is unlinked right after it is opened, so nothing is left behind when it is
    closed or garbage-collected, or when the process is killed.

    Args:
      folder: to create it in; None: the system's temporary folder.

    Raises:
      OSError: the file cannot be created; names it.
    """

    def __init__(self, folder: str | os.PathLike | None = None) -> None:
        self._file, self.path = tempfile.mkstemp(".masks", "vis_jax-", folder)
        os.unlink(self.path)
        self.size = 0  # bytes
        self._close = weakref.finalize(self, os.close, self._file)

    def append(self, data: bytes) -> int:
        """Appends bytes.

        Returns:
          Their offset in the file, in bytes.

        Raises:
          OSError: the file cannot be written, as on a full disk; names it.
        """
        start, file, rest = self.size, self._checked(), memoryview(data)
        with naming(self.path):
            while rest:
                rest = rest[os.pwrite(file, rest, start + len(data) - len(rest)) :]
        self.size += len(data)
        return start

    def read(self, start: int, length: int) -> bytes:
        """Returns bytes from an offset on.

        Raises:
          OSError: the file cannot be read; names it.
        """
        with naming(self.path):
            return os.pread(self._checked(), length, start)

    def close(self) -> None:
        """Closes the file and frees its space."""
        self._close()

    def _checked(self) -> int:
        if not self._close.alive:
            raise ValueError(f"{self.path}: the masks of this video are closed")
        return self._file


class _Block(NamedTuple):
    """Index of consecutive masks of a track."""

    frames: array  # increasing
    lengths: array  # bytes
    starts: array  # offset of each RLE in the file, in bytes

    @classmethod
    def of(cls, data: bytes = b"") -> "_Block":
        """Decodes a block from bytes."""
        block = cls(array("I"), array("I"), array("Q"))
        place = 0
        for part in block:
            size = _BLOCK * part.itemsize
            part.frombytes(data[place : place + size])
            place += size
        return block


class TrackIndex:
    """Index of one track's RLE masks in the file.

    Memory holds the last block, and 12 bytes for each earlier one.
    """

    def __init__(self, spill: Spill) -> None:
        self._spill = spill
        self._last = _Block.of()
        self._firsts = array("I")  # first frame of each earlier block
        self._places = array("Q")  # offset of each earlier block in the file
        self._loaded: tuple[int, _Block] | None = None

    def add(self, frame: int, start: int, length: int) -> None:
        """Adds the mask of a later frame."""
        if len(self._last.frames) == _BLOCK:
            self._places.append(self._spill.append(b"".join(self._last)))
            self._firsts.append(self._last.frames[0])
            self._last = _Block.of()
        for part, value in zip(self._last, (frame, length, start), strict=True):
            part.append(value)

    def find(self, frame: int) -> tuple[int, int] | None:
        """Returns offset and length of a frame's mask in bytes, or None."""
        block = self._block(frame)
        place = bisect_left(block.frames, frame)
        if place == len(block.frames) or block.frames[place] != frame:
            return None
        return block.starts[place], block.lengths[place]

    def _block(self, frame: int) -> _Block:
        """Returns the block that would contain a frame."""
        last = self._last.frames
        number = bisect_right(self._firsts, frame) - 1
        if number < 0 or (last and frame >= last[0]):
            return self._last
        if self._loaded is None or self._loaded[0] != number:
            data = self._spill.read(self._places[number], _BLOCK * 16)
            self._loaded = (number, _Block.of(data))
        return self._loaded[1]


class TrackMasks(Sequence[dict]):
    """RLE masks of one track, one per frame of the video, read lazily.

    Args:
      spill: file with the masks.
      index: index of the masks in the file.
      num_frames: length of the video.
      empty: empty mask for frames without the track; all masks have its size.
    """

    def __init__(
        self, spill: Spill, index: TrackIndex, num_frames: int, empty: dict
    ) -> None:
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
