"""The model as users of Python know it, however it was loaded.

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

# A path or address, images by path, or uint8 frames [H, W, 3].
Frames = str | os.PathLike | Sequence[str | os.PathLike] | Iterable[np.ndarray]


class Tracker(abc.ABC):
    """Finds and tracks the objects of videos. A subclass says by what."""

    @abc.abstractmethod
    def _finder(self) -> Finder:
        """What finds the tracks of a video."""

    @property
    def names(self) -> list[str]:
        """Names of the classes, by label."""
        return [name for _, name in self._finder().categories]

    def track(
        self, source: Frames, *, fps: Fraction | float | None = None
    ) -> VideoResult:
        """The tracks of a video, the best ones: as many as `test.top` says.

        Args:
          source: a video file, an image, a folder of images or a glob; a list of images
            by path; frames, uint8 [T, H, W, 3] or an iterable of [H, W, 3], RGB; "-",
            "camera:0", or an address that begins with http:// or rtsp://.
          fps: frames a second; None: those of the source, 6 where it does not say.

        Raises:
          ValueError: the source cannot be read, or has no end and the system needs the
            whole video.
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
        """Yields every frame of a video once what is said of it is final.

        A system that is online, or works clip by clip, yields while it reads. Labels
        and scores are those known by then.

        Args:
          source, fps: as in `track`.

        Raises:
          ValueError: as `track`, at once.
        """
        return _frames(self._finder(), _opened(source, fps))


def _frames(finder: Finder, source: Source) -> Iterator[FrameResult]:
    """The frames of a source, which is known to fit what finds its tracks."""
    check_live(source, whole=finder.whole)
    return _closed(source, finder.stream)


def _closed(source: Source, stream: Stream) -> Iterator[FrameResult]:
    """The results of a source, which ends with the last one taken."""
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
