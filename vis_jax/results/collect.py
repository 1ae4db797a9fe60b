"""Collects the frame results of one video into tracks."""

import os
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from vis_jax.results.frame import FrameResult, LiveTracks
from vis_jax.results.spill import Spill, TrackIndex, TrackMasks
from vis_jax.results.video import VideoResult


class _Track(NamedTuple):
    """Track of the frames so far."""

    number: int
    class_probs: np.ndarray  # float32 [K]
    masks: TrackIndex


class Collector:
    """Collects the tracks of one video; of ended tracks, it keeps only the best.

    Masks go to a temporary file. Memory holds a few kilobytes for each live track and
    for each of the `top` best ended ones, regardless of the number of frames.

    Args:
      top: number of (track, class) pairs in the result, those with the highest
        probability; a track may appear with several classes.
      folder: folder of the temporary file; None: the system's temporary folder.
    """

    def __init__(self, top: int, folder: str | os.PathLike | None = None) -> None:
        self.lost = 0  # objects that found no free slot, so far
        self.num_frames = 0  # index of the last added frame, plus 1
        self._top = top
        self._spill = Spill(folder)
        self._live: dict[int, _Track] = {}
        self._ended: list[_Track] = []
        self._tracks: LiveTracks | None = None
        self._size: list[int] | None = None

    def add(self, frame: FrameResult) -> None:
        """Adds the next frame.

        Raises:
          ValueError: frames are out of order, or masks have different sizes.
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
        """Updates class probabilities; tracks that are missing have ended."""
        self._tracks, self.lost = tracks, tracks.lost
        numbers = tracks.ids.tolist()
        ended = self._live.keys() - set(numbers)
        self._ended += [self._live.pop(number) for number in sorted(ended)]
        # The `top` best pairs belong to the `top` tracks with the best classes.
        self._ended.sort(key=lambda track: -track.class_probs.max())
        del self._ended[self._top :]
        for number, probs in zip(numbers, tracks.class_probs.copy(), strict=True):
            before = self._live.get(number)
            masks = before.masks if before else TrackIndex(self._spill)
            self._live[number] = _Track(number, probs, masks)

    def result(self, num_frames: int, size: tuple[int, int]) -> VideoResult:
        """Returns the best pairs, best first; masks are empty where a track is absent.

        Masks are read lazily from the temporary file, which lives as long as the
        result.

        Args:
          num_frames: length of the video.
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
        # A system that decides on one class gives the others a probability of 0.
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
    """Collects the tracks of a video from all its frames.

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
    """Returns the `top` best (row, class) pairs of [N, K], as flat indices."""
    return np.argsort(-probs.reshape(-1), kind="stable")[:top]


def _empty_mask(height: int, width: int) -> dict:
    from pycocotools import mask as coco_mask

    return coco_mask.encode(np.zeros((height, width), np.uint8, order="F"))
