"""Collects the frame results of one video into tracks."""

import os
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from vis_jax.results.frame import FrameResult, LiveTracks
from vis_jax.results.spill import Spill, TrackIndex, TrackMasks
from vis_jax.results.video import VideoResult


class _Track(NamedTuple):
    """One track as far as it is known."""

    number: int
    class_probs: np.ndarray  # float32 [K]
    masks: TrackIndex


class Collector:
    """The tracks of one video, of which only the best are kept once they end.

    Masks go to a temporary file. Memory holds some kilobytes for each live track and
    each of the `top` best that ended, whatever the number of frames.

    Args:
      top: the (track, class) pairs with the best probability that become the result; a
        track may appear with several classes.
      folder: of the temporary file; None for that of the system.
    """

    def __init__(self, top: int, folder: str | os.PathLike | None = None) -> None:
        self.lost = 0  # objects so far that found no free slot
        self.num_frames = 0  # up to the last one added
        self._top = top
        self._spill = Spill(folder)
        self._live: dict[int, _Track] = {}
        self._ended: list[_Track] = []
        self._tracks: LiveTracks | None = None
        self._size: list[int] | None = None

    def add(self, frame: FrameResult) -> None:
        """Adds the next frame.

        Raises:
          ValueError: frames are not in order, or masks have different sizes.
          OSError: the temporary file cannot be written; names it.
        """
        if frame.frame < self.num_frames:
            raise ValueError(
                f"frame: expected {self.num_frames} or later, got {frame.frame}"
            )
        self.num_frames = frame.frame + 1
        if frame.tracks is not self._tracks:
            self._update(frame.tracks)
        for rle in frame.segmentations:
            self._size = self._size or list(rle["size"])
            if list(rle["size"]) != self._size:
                raise ValueError(
                    f"frame {frame.frame}: expected masks of size {self._size},"
                    f" got {list(rle['size'])}"
                )
        counts = [rle["counts"] for rle in frame.segmentations]
        start = self._spill.append(b"".join(counts))
        for number, data in zip(frame.ids.tolist(), counts, strict=True):
            self._live[number].masks.add(frame.frame, start, len(data))
            start += len(data)

    def _update(self, tracks: LiveTracks) -> None:
        """Takes the classes as now known; tracks that are missing have ended."""
        self._tracks, self.lost = tracks, tracks.lost
        numbers = tracks.ids.tolist()
        ended = self._live.keys() - set(numbers)
        self._ended += [self._live.pop(number) for number in sorted(ended)]
        # A pair among the best belongs to one of as many tracks with the best class.
        self._ended.sort(key=lambda track: -track.class_probs.max())
        del self._ended[self._top :]
        for number, probs in zip(numbers, tracks.class_probs.copy(), strict=True):
            before = self._live.get(number)
            masks = before.masks if before else TrackIndex(self._spill)
            self._live[number] = _Track(number, probs, masks)

    def result(self, num_frames: int, size: tuple[int, int]) -> VideoResult:
        """The best pairs, best first, with an empty mask where a track has none.

        Its masks are read from the temporary file, which lives as long as it does.

        Args:
          num_frames: of the video.
          size: height and width of a frame in pixels.

        Raises:
          ValueError: the masks have another size.
        """
        if self._size not in (None, list(size)):
            raise ValueError(f"expected masks of size {list(size)}, got {self._size}")
        tracks = [*self._live.values(), *self._ended]
        height, width = size
        if not tracks:
            none = np.zeros(0, np.int32)
            scores = np.zeros(0, np.float32)
            return VideoResult(none, scores, none, [], height, width, num_frames)
        probs = np.stack([track.class_probs for track in tracks])
        pairs = best_pairs(probs, self._top)
        # A system that knows a track's class gives nothing to the others.
        pairs = pairs[probs.reshape(-1)[pairs] > 0]
        rows = (pairs // probs.shape[1]).tolist()
        empty = _empty_mask(height, width)
        return VideoResult(
            labels=(pairs % probs.shape[1]).astype(np.int32),
            scores=probs.reshape(-1)[pairs],
            track_ids=np.array([tracks[row].number for row in rows], np.int32),
            segmentations=[
                TrackMasks(self._spill, tracks[row].masks, num_frames, empty)
                for row in rows
            ],
            height=height,
            width=width,
            num_frames=num_frames,
        )


def collect(
    frames: Iterable[FrameResult],
    top: int,
    num_frames: int,
    size: tuple[int, int],
    folder: str | os.PathLike | None = None,
) -> VideoResult:
    """The tracks of a video from all its frames.

    Args:
      frames: in order.
      top, folder: see `Collector`.
      num_frames, size: see `Collector.result`.
    """
    collector = Collector(top, folder)
    for frame in frames:
        collector.add(frame)
    return collector.result(num_frames, size)


def best_pairs(probs: np.ndarray, top: int) -> np.ndarray:
    """The `top` best (row, class) pairs of [N, K], as indices of the flat array."""
    return np.argsort(-probs.reshape(-1), kind="stable")[:top]


def _empty_mask(height: int, width: int) -> dict:
    from pycocotools import mask as coco_mask

    return coco_mask.encode(np.zeros((height, width), np.uint8, order="F"))
