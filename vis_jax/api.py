"""The library from Python: models that track the objects of videos, and training.

What `vis_jax` offers under its own name is defined here, but for `score`, which is that
of `vis_jax.scoring` and needs no JAX.
"""

import dataclasses
import functools
import math
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import jax
import numpy as np

from vis_jax.commands import parts
from vis_jax.commands.config_file import saved_in
from vis_jax.commands.run_settings import RunSettings
from vis_jax.commands.saved_model import (
    SavedModel,
    read_model,
    read_settings_of,
    write_model,
)
from vis_jax.commands.train import train_config
from vis_jax.evaluate.infer import make_stream
from vis_jax.main import quieten
from vis_jax.paths import check_folder
from vis_jax.predict.loop import check_live, of_source
from vis_jax.predict.source import Source
from vis_jax.predict.sources import from_arrays, open_source
from vis_jax.results.collect import Collector
from vis_jax.results.frame import FrameResult
from vis_jax.results.stream import Stream
from vis_jax.results.video import VideoResult

# A path or address, images by path, or uint8 frames [H, W, 3].
Frames = str | os.PathLike | Sequence[str | os.PathLike] | Iterable[np.ndarray]


def load(
    path: str | os.PathLike,
    settings: Mapping[str, Any] | None = None,
    *,
    config: str | os.PathLike | Mapping | None = None,
    categories: str | os.PathLike | Sequence[str] | None = None,
    **test: Any,
) -> "Model":
    """Loads a trained model.

    Compiled programs are kept in the user's cache folder, vis_jax/compilations, unless
    JAX has another one already.

    Args:
      path: the folder of a training run, whose newest checkpoint is read; of one of its
        checkpoints; of the output of `convert`; or in the layout of a model hub, with
        config.json, categories.json and model.safetensors.
      settings: other values by path, such as {"test.tracker": "iou"}.
      config: for a checkpoint without one: a Python file, such as "configs/ifr_r50.py",
        another config.json, or fields by name.
      categories: for a checkpoint without them: an annotation file that lists the
        classes, or their names in the order of the labels.
      **test: fields of `test`: mode="clip" is short for {"test.mode": "clip"}.

    Raises:
      ValueError: something is missing, damaged or does not fit; a setting is unknown or
        out of its range. One line that says what was expected and what came.
    """
    check_folder("path", path)
    fields = {**(settings or {}), **{f"test.{name}": x for name, x in test.items()}}
    found = read_model(path, fields, config=config, categories=categories)
    if not jax.config.jax_compilation_cache_dir:  # type: ignore[attr-defined]
        parts.keep_user_compilations()
    return Model(found)


def train(
    config: str | os.PathLike | Mapping | None,
    workdir: str | os.PathLike,
    settings: Mapping[str, Any] | None = None,
    *,
    accept_changes: bool = False,
) -> None:
    """Trains a system and evaluates it at the end; called again, it goes on.

    It is the loop of the command `train`: progress is printed, SIGINT and SIGTERM save
    the state and end the process.

    Args:
      config: a Python file, such as "configs/ifr_shapes.py:steps=500", a config.json,
        or fields by name; None for that of a run to go on with.
      workdir: folder of the run, for `load`.
      settings: other values by path, such as {"data.root": "/data/videos"}.
      accept_changes: go on although settings differ from those that the run began with.

    Raises:
      ValueError: a setting is unknown or out of its range; the data or the run do not
        fit. One line that says what was expected and what came.
    """
    quieten()
    check_folder("workdir", workdir)
    run = read_settings_of(config or saved_in(workdir), settings or {})
    train_config(run, os.fspath(workdir), accept_changes=accept_changes)


class Model:
    """A system that finds and tracks the objects of videos, as `load` makes it.

    Args:
      saved: what to run.
    """

    def __init__(self, saved: SavedModel):
        self._saved = saved

    @property
    def config(self) -> RunSettings:
        """All settings."""
        return self._saved.config

    @property
    def names(self) -> list[str]:
        """Names of the classes, by label."""
        return [name for _, name in self._saved.categories]

    def track(
        self, source: Frames, *, fps: Fraction | float | None = None
    ) -> VideoResult:
        """The tracks of a video, the best `test.top`.

        Args:
          source: a video file, an image, a folder of images or a glob; a list of images
            by path; frames, uint8 [T, H, W, 3] or an iterable of [H, W, 3], RGB; "-",
            "camera:0", or an address that begins with http:// or rtsp://.
          fps: frames a second; None: those of the source, 6 where it does not say.

        Raises:
          ValueError: the source cannot be read, or has no end and the system needs the
            whole video.
        """
        opened = _opened(source, fps)
        collector = Collector(self.config.test.top)
        for frame in self._frames(opened):
            collector.add(frame)
        size = (opened.height, opened.width)
        found = collector.result(collector.num_frames, size)
        return of_source(found, opened, self._saved.categories)

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
        return self._frames(_opened(source, fps))

    def save_hub(self, folder: str | os.PathLike) -> None:
        """Writes the model in the layout of a model hub, for `load`.

        Args:
          folder: that does not exist; gets config.json, categories.json and
            model.safetensors.

        Raises:
          ValueError: the folder exists.
          OSError: a file cannot be written, as on a full disk; names the file.
        """
        write_model(folder, self._saved)

    @functools.cached_property
    def _stream(self) -> Stream:
        saved = self._saved
        return make_stream(saved.system, saved.variables, saved.config.test)

    def _frames(self, source: Source) -> Iterator[FrameResult]:
        """The frames of a source, which is known to fit the system."""
        check_live(source, whole=self._saved.system.window.length is None)
        return _closed(source, self._stream)

    def __repr__(self) -> str:
        return f"Model(system={self.config.system!r}, {len(self.names)} classes)"


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
