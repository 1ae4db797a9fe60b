"""Chooses whole-video or clip-by-clip inference, and estimates its memory."""

import dataclasses
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from absl import flags

from vis_jax.commands import parts

if TYPE_CHECKING:
    from vis_jax.commands.run_settings import RunSettings
    from vis_jax.evaluate.stream import Program
    from vis_jax.predict.loop import Finder
    from vis_jax.predict.source import Source
    from vis_jax.systems.system import TestSettings

MODE = "config.test.mode"
# Estimates from shapes are off by up to this factor; a video is rejected only if it
# could not fit in any case.
UNSURE = 2.5


def mode_is_set(values: flags.FlagValues) -> bool:
    """Returns whether the command line sets the inference mode."""
    return MODE in values and values[MODE].present > 0


def for_source(
    config: "RunSettings", source: "Source", *, fixed: bool
) -> "tuple[RunSettings, str | None]":
    """Returns the settings for a video, and a note if it falls back to clip mode.

    The fallback is for a video longer than the largest of `test.frame_buckets`, or an
    endless one, if the model would otherwise read it whole.

    Args:
      config: config of the model.
      source: the video.
      fixed: whether to keep the mode.
    """
    test, count = config.test, source.likely_frames
    most = max(test.frame_buckets)
    if fixed or test.mode != "video" or test.tta:
        return config, None
    if not source.live and (count is None or count <= most):
        return config, None
    clips = dataclasses.replace(config, test=dataclasses.replace(test, mode="clip"))
    try:
        parts.build_system(clips)
    except ValueError:  # e.g. a tracker that needs the whole video
        return config, None
    why = "has no known end"
    if not source.live:
        why = f"{count:,} frames, more than test.frame_buckets has ({most})"
    how = f"goes clip by clip, {_frames(test.clip_length)} each"
    return clips, f"{source.path}: {why}: {how}; --{MODE}=video takes it whole"


class Choice(NamedTuple):
    """How a video is predicted."""

    finder: "Finder"
    note: str | None  # to print; see `for_source`
    memory: str  # see `memory_line`


class Finders:
    """Finders on every device, for whole-video and clip-by-clip inference.

    Args:
      config: config of the model.
      variables: its parameters.
      categories: (category id, name) of labels 0, 1, ..
      fixed: the mode of the config serves all videos.
    """

    def __init__(
        self,
        config: "RunSettings",
        variables: dict,
        categories: "Sequence[tuple[int, str]]",
        *,
        fixed: bool,
    ) -> None:
        self._config, self._variables = config, variables
        self._categories, self._fixed = categories, fixed
        self._lock = threading.Lock()
        self._made: dict[str, list[tuple[Program, Finder]]] = {}

    def __len__(self) -> int:
        """Number of devices."""
        return len(self._of(self._config))

    def find(self, device: int, source: "Source") -> Choice:
        """Chooses the finder for a video.

        Raises:
          ValueError: the video needs far more memory than this machine has.
        """
        config, note = for_source(self._config, source, fixed=self._fixed)
        program, finder = self._of(config)[device]
        return Choice(finder, note, memory_line(program, source, config.test))

    def _of(self, config: "RunSettings") -> "list[tuple[Program, Finder]]":
        """Returns one program and its finder per device, cached."""
        from vis_jax.evaluate import infer
        from vis_jax.predict.loop import Finder

        with self._lock:
            if config.test.mode not in self._made:
                system, test = parts.build_system(config), config.test
                whole = system.window.length is None
                programs = infer.make_programs(system, self._variables)
                self._made[test.mode] = [
                    (
                        one,
                        Finder(infer.run(one, test), self._categories, test.top, whole),
                    )
                    for one in programs
                ]
            return self._made[config.test.mode]


def memory_line(program: "Program", source: "Source", test: "TestSettings") -> str:
    """Formats a line with the memory that a model needs for a video.

    Args:
      program: runs the model.
      source: the video.
      test: settings for resizing frames.

    Raises:
      ValueError: it is far more than this machine has.
    """
    from vis_jax.evaluate.clips import blank_clip, place_frames
    from vis_jax.evaluate.memory import machine_bytes

    window, count = program.window, source.likely_frames
    if program.memory is None or (window.length is None and count is None):
        return "not known before the video is read"
    place = place_frames((source.height, source.width), test, multiple=window.multiple)
    clip = blank_clip(window, place.canvas, count or 1)
    frames = clip.images.shape[0]
    needed, available = program.memory(clip), machine_bytes()
    each = f"{_size(needed / frames)} a frame"
    text = f"about {_size(needed)} for {_frames(frames)} at once, {each}"
    if needed > UNSURE * available:
        raise ValueError(
            f"{source.path}: expected a video that fits into {_size(available)}, got"
            f" {text}; --{MODE}=clip takes it clip by clip"
        )
    return f"{text}; there are {_size(available)}"


def _frames(count: int) -> str:
    return "1 frame" if count == 1 else f"{count:,} frames"


def _size(number: float) -> str:
    """Formats a number of bytes."""
    units = (("GB", 1e9), ("MB", 1e6), ("kB", 1e3))
    unit, scale = next((one for one in units if number >= one[1]), units[-1])
    return f"{number / scale:.1f} {unit}"
