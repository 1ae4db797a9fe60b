"""Report of a predicted video, built while frames arrive."""

import os
from collections.abc import Sequence

import numpy as np

from vis_jax.formats.tracks import TruthVideo
from vis_jax.report.page import write_page
from vis_jax.report.pictures import data_uri
from vis_jax.report.tubes import (
    MAX_FRAMES,
    ShownFrames,
    colour_text,
    pack_mask,
    shown_size,
    view_entry,
)
from vis_jax.results.frame import FrameResult
from vis_jax.results.video import VideoResult

FASTEST = 30  # maximum frames per second
MAX_BYTES = 10_000_000  # pictures and masks together


class PredictedPage:
    """Collects frames and tracks, and writes them as one HTML file.

    The length of the video need not be known: whenever more than `MAX_FRAMES` frames or
    `MAX_BYTES` bytes accumulate, every second frame is dropped, and the step of the
    following ones doubles.

    Args:
      name: name of the video.
      size: height and width of its frames, in pixels.
      names: names of the classes.
      fps: frames per second.
    """

    def __init__(
        self, name: str, size: tuple[int, int], names: Sequence[str], fps: float
    ) -> None:
        self._video = TruthVideo(1, name, *size, 0)
        self._names, self._fps = names, fps
        self._step, self._count = 1, 0
        self._pictures: list[str] = []
        self._frames: list[dict[int, str | int]] = []  # mask of each track
        self._tracks: dict[int, tuple[int, float]] = {}  # label and score

    def add(self, pixels: np.ndarray, found: FrameResult) -> None:
        """Adds the next frame.

        Args:
          pixels: uint8 [H, W, 3], RGB.
          found: the objects to show in it.
        """
        labels, scores = found.labels.tolist(), found.scores.tolist()
        ids = found.ids.tolist()
        for number, label, score in zip(ids, labels, scores, strict=True):
            # The latest class and score are the best known, until `settle`.
            self._tracks[number] = (label, score)
        if self._count % self._step == 0:
            view = self._view()
            self._pictures.append(data_uri(pixels, view))
            masks = [pack_mask(rle, view) for rle in found.segmentations]
            self._frames.append(dict(zip(ids, masks, strict=True)))
        full = len(self._frames) > MAX_FRAMES or self._size() > MAX_BYTES
        if full and len(self._frames) > 1:
            self._step *= 2
            self._pictures, self._frames = self._pictures[::2], self._frames[::2]
        self._count += 1

    def settle(self, result: VideoResult) -> None:
        """Sets the final classes and scores of tracks.

        Tracks not among the best of the video keep their latest ones.
        """
        for i in result.best_entries.tolist():
            number = int(result.track_ids[i])
            if number in self._tracks:
                final = int(result.labels[i]), float(result.scores[i])
                self._tracks[number] = final

    def write(self, path: str | os.PathLike) -> None:
        """Writes the page.

        Raises:
          OSError: the file cannot be written; names it.
        """
        write_page(path, self.content())

    def content(self) -> dict:
        """Returns the content of the page, ready for JSON."""
        best = sorted(self._tracks, key=lambda number: -self._tracks[number][1])
        used = len({label for label, _ in self._tracks.values()})
        return {
            "kind": "predict",
            "title": f"Tracks in {self._video.name}",
            "files": [],
            "summary": [
                ["tracks", len(best)],
                ["classes", used],
                ["frames", self._count],
            ],
            "classes": list(self._names),
            "videos": [
                {
                    "name": self._video.name,
                    "masks": True,
                    "speed": min(self._fps / self._step, FASTEST),
                    "truths": [],
                    "predictions": [self._track(number) for number in best],
                    "hidden": 0,
                    "pictures": self._pictures,
                }
                | view_entry(self._view())
            ],
        }

    def _size(self) -> int:
        """Returns the size of all pictures and masks, in bytes."""
        masks = sum(len(str(m)) for frame in self._frames for m in frame.values())
        return masks + sum(map(len, self._pictures))

    def _view(self) -> ShownFrames:
        size = shown_size(self._video.height, self._video.width)
        return ShownFrames(*size, self._step, len(self._frames))

    def _track(self, number: int) -> dict:
        label, score = self._tracks[number]
        present = [t for t, masks in enumerate(self._frames) if masks.get(number)]
        shown = range(present[0], present[-1] + 1) if present else range(0)
        return {
            "name": str(number),
            "class": label,
            "score": round(score, 4),
            "colour": colour_text(number),
            "kind": None,
            "target": None,
            "start": shown.start,
            "masks": [self._frames[t].get(number, 0) for t in shown],
        }
