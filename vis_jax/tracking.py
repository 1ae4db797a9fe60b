"""`Tracker`, the Python interface of a model, whether loaded as weights or programs.

Nothing here needs Flax, TensorFlow or a config.
"""

import abc
import dataclasses
import math
import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import numpy as np

from vis_jax.predict.loop import Finder, check_live, of_source
from vis_jax.predict.source import Source
from vis_jax.predict.sources import from_arrays, open_source
from vis_jax.results.collect import Collector
from vis_jax.results.frame import FrameResult, Stream
from vis_jax.results.video import VideoResult

# A path or address, a list of image paths, or uint8 frames [H, W, 3].
Frames = str | os.PathLike | Sequence[str | os.PathLike] | Iterable[np.ndarray]


class Tracker(abc.ABC):
    """Detects and tracks objects in videos. Subclasses provide the `Finder`."""

    @abc.abstractmethod
    def _finder(self) -> Finder:
        """The finder that tracks the objects of a video."""

    @property
    def names(self) -> list[str]:
        """Class names, by label."""
        return [name for _, name in self._finder().categories]

    def track(
        self, source: Frames, *, fps: Fraction | float | None = None
    ) -> VideoResult:
        """Returns the highest-scoring tracks of a video, at most `test.top`.

        Args:
          source: a video file, an image, a folder of images or a glob; a list of image
            paths; RGB frames, uint8 [T, H, W, 3] or an iterable of [H, W, 3]; "-",
            "camera:0", or an address that begins with http:// or rtsp://.
          fps: frames per second; None: the rate of the source, or 6 if it has none.

        Raises:
          ValueError: the source cannot be read, or is endless and the system needs
            the whole video.
        """
        opened, finder = _opened(source, fps), self._finder()
        collector = Collector(finder.top)
        for frame in _frames(finder, opened):
            collector.add(frame)
        size = (opened.height, opened.width)
        found = collector.result(collector.num_frames, size)
        return of_source(found, opened, finder.categories)

    def stream(
        self, source: Frames, *, fps: Fraction | float | None = None
    ) -> Iterator[FrameResult]:
        """Yields the result of each frame as soon as it is final.

        An online or clip-by-clip system yields while it reads. Labels and scores are
        the current estimates.

        Args:
          source, fps: as in `track`.

        Raises:
          ValueError: as in `track`, raised by the call itself.
        """
        return _frames(self._finder(), _opened(source, fps))


def _frames(finder: Finder, source: Source) -> Iterator[FrameResult]:
    """Yields the frame results of a source already checked against the finder."""
    check_live(source, whole=finder.whole)
    return _closed(source, finder.stream)


def _closed(source: Source, stream: Stream) -> Iterator[FrameResult]:
    """Yields the results of a stream, then stops the source and issues its warnings."""
    try:
        yield from stream(source)
    finally:
        source.stop()
        for line in source.warnings:
            warnings.warn(line, stacklevel=2)


def _opened(source: Frames, fps: Fraction | float | None) -> Source:
    if fps is not None and not 0 < fps < math.inf:
        raise ValueError(f"fps: expected a number of frames a second, got {fps}")
    if isinstance(source, str | os.PathLike):
        opened = open_source(source if isinstance(source, str) else Path(source))
    elif isinstance(source, list | tuple) and _are_paths(source):
        opened = open_source([Path(one) for one in source])
    else:
        return from_arrays(cast("Iterable[np.ndarray]", source), fps=fps)
    return opened if fps is None else dataclasses.replace(opened, fps=Fraction(fps))


def _are_paths(items: Sequence[Any]) -> bool:
    return all(isinstance(one, str | os.PathLike) for one in items)
