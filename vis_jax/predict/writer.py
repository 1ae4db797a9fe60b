"""Writes the files of a prediction that grow frame by frame."""

import json
from collections.abc import Sequence
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, TextIO

import numpy as np

from vis_jax.formats.disk import naming
from vis_jax.formats.rle import plain_mask
from vis_jax.predict.formats import DEFAULT, IDS, PAGE, TRACKS, VIDEO
from vis_jax.predict.sinks import IdSink, VideoSink, id_map
from vis_jax.predict.source import Source
from vis_jax.report.predicted import PredictedPage
from vis_jax.results.clock import Clock
from vis_jax.results.frame import FrameResult
from vis_jax.results.video import VideoResult
from vis_jax.visualize.colours import STYLE, DrawStyle
from vis_jax.visualize.draw import draw_frame
from vis_jax.visualize.trails import Trails


class RequestedOutputs(NamedTuple):
    """Outputs requested from `predict`."""

    # Objects below it appear in `results.json` only.
    score_threshold: float = 0.3
    formats: tuple[str, ...] = DEFAULT  # keys of `formats.FORMATS`
    # Frames per second of the drawn video, without sound; None: the frame times of the
    # source, with its sound, if its rate is within `loop.FPS`.
    fps: Fraction | float | None = None
    classes: tuple[str, ...] = ()  # classes to keep; () = all
    tracks: tuple[int, ...] = ()  # track ids to keep; () = all
    style: DrawStyle = STYLE  # style of the drawn video


class OutputWriter:
    """Writes files frame by frame. A context manager.

    Args:
      folder: output folder.
      source: source of the frames.
      names: class names, by label.
      wanted: requested outputs.
      fps: frames per second of the drawn video.
      clock: measures drawing and writing.
    """

    def __init__(
        self,
        folder: Path,
        source: Source,
        names: Sequence[str],
        wanted: RequestedOutputs,
        fps: Fraction,
        clock: Clock,
    ) -> None:
        self._folder, self._names, self._clock = folder, names, clock
        self._threshold, self._style = wanted.score_threshold, wanted.style
        self._trails = Trails(wanted.style.trails)
        self._constant = wanted.fps is not None or fps != source.fps
        sound = None if self._constant else source.sound
        self._size = (source.height, source.width)
        with ExitStack() as stack:
            self._tracks: TextIO | None = None
            if "jsonl" in wanted.formats:
                # Line-buffered, for readers that follow the file.
                tracks = (folder / TRACKS).open("w", buffering=1, encoding="utf-8")
                self._tracks = stack.enter_context(tracks)
            self._ids = IdSink(folder / IDS) if "ids" in wanted.formats else None
            self._page: PredictedPage | None = None
            if "html" in wanted.formats:
                self._page = PredictedPage(source.name, self._size, names, float(fps))
            self._video: VideoSink | None = None
            if "mp4" in wanted.formats:
                height, width = self._size
                video = VideoSink(
                    folder / VIDEO,
                    fps=fps,
                    height=height,
                    width=width,
                    pixel_aspect=source.pixel_aspect,
                    sound=sound if sound and sound.fits else None,
                )
                self._video = stack.enter_context(video)
            self._stack = stack.pop_all()

    def write(
        self, seconds: float, pixels: np.ndarray | None, found: FrameResult
    ) -> None:
        """Adds a frame.

        Args:
          seconds: time since the first frame.
          pixels: uint8 [H, W, 3]; used for drawing only.
          found: objects of the frame.

        Raises:
          OSError: a file cannot be written, as on a full disk; names the file.
        """
        shown = _shown(found, self._threshold)
        if self._tracks is not None:
            with self._clock("writing"), naming(self._folder / TRACKS):
                self._tracks.write(self._line(seconds, shown) + "\n")
        if self._page is not None and pixels is not None:
            with self._clock("drawing"):
                self._page.add(pixels, shown)
        if self._ids is None and self._video is None:
            return
        with self._clock("drawing"):
            # Its own size is that of the frame if there is no object.
            masks = shown._replace(size=self._size).masks
        if self._ids is not None:
            with self._clock("writing"):
                self._ids.write(id_map(masks, shown.ids, shown.scores))
        if self._video is not None and pixels is not None:
            with self._clock("drawing"):
                drawn = draw_frame(
                    pixels,
                    masks,
                    shown.ids,
                    labels=shown.labels,
                    names=self._names,
                    scores=shown.scores,
                    style=self._style,
                    trails=self._trails.after(shown.ids, masks),
                )
            with self._clock("writing"):
                self._video.write(drawn, None if self._constant else seconds)

    def finish(self, result: VideoResult) -> None:
        """Writes the files that need all frames.

        Args:
          result: all tracks.

        Raises:
          OSError: a file cannot be written, as on a full disk; names the file.
        """
        if self._page is not None:
            self._page.settle(result)
            self._page.write(self._folder / PAGE)

    def _line(self, seconds: float, found: FrameResult) -> str:
        """Formats a frame as a line of JSON."""
        columns = zip(
            found.ids.tolist(),
            found.labels.tolist(),
            found.scores.tolist(),
            found.boxes.astype(int).tolist(),
            found.segmentations,
            strict=True,
        )
        objects = [
            {
                "id": number,
                "label": self._names[label],
                "score": round(score, 6),
                "box": box,
                "segmentation": plain_mask(rle),
            }
            for number, label, score, box, rle in columns
        ]
        content = {"frame": found.frame, "time": round(seconds, 6), "objects": objects}
        return json.dumps(content, allow_nan=False)

    def __enter__(self) -> "OutputWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self._clock("writing"):
            try:
                if self._tracks is not None:
                    with naming(self._folder / TRACKS):
                        self._tracks.close()
            finally:
                self._stack.__exit__(kind, error, traceback)
            if self._ids is not None and error is None:
                self._ids.close()


def _shown(found: FrameResult, threshold: float) -> FrameResult:
    """Returns the objects whose best class so far reaches the threshold."""
    keep = np.flatnonzero(found.scores >= threshold)
    masks = [found.segmentations[i] for i in keep]
    return found._replace(rows=found.rows[keep], segmentations=masks)
