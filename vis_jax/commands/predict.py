"""Finds and tracks the objects of one video: results.json and a video with masks.

examples:
  python -m vis_jax.main predict --workdir runs/shapes --source video.mp4 --output out
  python -m vis_jax.main predict --workdir runs/shapes --source 'frames/*.jpg' \\
      --output out --score_threshold=0.5 --pngs
"""

import sys
from typing import TYPE_CHECKING

from absl import flags

from vis_jax.commands import parts
from vis_jax.commands.config_flag import define_config, read_config

if TYPE_CHECKING:
    from vis_jax.results.video import VideoResult


def define(values: flags.FlagValues, arguments: list[str]) -> None:
    """Adds the flags of this command."""
    define_config(values, arguments)
    texts = {
        "workdir": "folder of a training run; gives config, classes and checkpoint",
        "checkpoint": "folder of a checkpoint; default: the newest of --workdir",
        "source": "video file, folder of frames, or a quoted pattern as 'frames/*.jpg'",
        "output": "folder for results.json, video.json, video.mp4",
    }
    for name, text in texts.items():
        flags.DEFINE_string(name, None, text, flag_values=values)
    flags.DEFINE_float(
        "score_threshold", 0.3, "tracks below are not drawn", flag_values=values
    )
    flags.DEFINE_float(
        "fps",
        None,
        "of the drawn video, 0.01 .. 1000; default: the source's",
        flag_values=values,
    )
    switches = {
        "pngs": (False, "also write ids/00000.png, ..: one track id per pixel"),
        "video": (True, "write video.mp4"),
        "overwrite": (False, "replace earlier results in --output"),
    }
    for name, (default, text) in switches.items():
        flags.DEFINE_bool(name, default, text, flag_values=values)


def run(values: flags.FlagValues) -> None:
    """Predicts."""
    for name in ("workdir", "source", "output"):
        if not getattr(values, name):
            raise ValueError(f"--{name}: expected a path, got none")
    from vis_jax.commands.run_settings import with_classes
    from vis_jax.evaluate.infer import make_stream
    from vis_jax.predict.loop import Wanted, predict, warning_lines
    from vis_jax.predict.sources import open_source
    from vis_jax.results.collect import collect

    config = read_config(values)
    categories = parts.read_categories(values.workdir)
    source = open_source(values.source)
    wanted = Wanted(values.score_threshold, values.video, values.pngs, values.fps)
    for line in warning_lines(source, wanted):
        print(f"warning: {line}", file=sys.stderr)
    parts.keep_compilations(values.workdir)
    config = with_classes(config, len(categories))
    system = parts.build_system(config)
    checkpoint = values.checkpoint or values.workdir
    variables = parts.load_model(system, checkpoint)
    stream = make_stream(system, variables, config.test)

    def infer(frames, *, height: int, width: int, num_frames: int) -> "VideoResult":
        return collect(stream(frames), config.test.top, num_frames, (height, width))

    outputs = predict(
        source,
        values.output,
        infer,
        categories=categories,
        wanted=wanted,
        overwrite=values.overwrite,
        progress=sys.stderr.isatty(),
    )
    for name, written in outputs._asdict().items():
        if written is not None:
            print(f"{name:<14}{written}")
