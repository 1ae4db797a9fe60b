"""Detects and tracks the objects of a video; writes results and a video with masks.

With several videos (a folder of them, a pattern, several paths, or a .txt file with a
path per line), each gets its own folder in --output. All devices of the machine are
used, each for a different video. Run again, the command resumes with the videos that
lack results. A video that cannot be read does not stop the others; such videos are
listed at the end, and the exit code is 3. On several hosts, start the same command on
each of them, as for training, or give each task of a job array --shard NUMBER/COUNT.

examples:
  python -m vis_jax.main predict --checkpoint shapes --source video.mp4 --output out
  python -m vis_jax.main predict --workdir runs/shapes --source video.mp4 --output out
  python -m vis_jax.main predict --workdir runs/shapes --source 'frames/*.jpg' \\
      --output out --score_threshold=0.5 --pngs
  python -m vis_jax.main predict --workdir runs/shapes --source camera:0 --output out \\
      --config.test.mode=clip
  python -m vis_jax.main predict --workdir runs/shapes --source film.mp4 --output out \\
      --start=1:30 --end=2:00 --every=2 --classes=person,dog
  python -m vis_jax.main predict --workdir runs/shapes --source videos/ --output out
  python -m vis_jax.main predict --workdir runs/shapes --source videos.txt \\
      --output out --shard 3/16
  python -m vis_jax.main predict --checkpoint shapes --output out --source videos/*.mp4
"""

import os
import sys
import time
from typing import TYPE_CHECKING

from absl import flags

from vis_jax.commands import parts
from vis_jax.commands.config_flag import define_config, read_config
from vis_jax.commands.predict_flags import define_flags, raw_size, read_wanted
from vis_jax.commands.predict_lines import report, tell
from vis_jax.paths import written_locally

if TYPE_CHECKING:
    from vis_jax.predict.source import Source


def define(values: flags.FlagValues, arguments: list[str]) -> None:
    """Adds the flags of this command."""
    define_config(values, arguments)
    define_flags(values)


def run(values: flags.FlagValues) -> None:
    """Runs the prediction."""
    begin = time.perf_counter()
    parts.checkpoint_of(values)
    for name in ("source", "output"):
        if not getattr(values, name):
            raise ValueError(f"--{name}: expected a path, got none")
    from vis_jax.predict.many import find_videos

    videos = find_videos(values.source)
    if videos is not None:
        from vis_jax.commands.predict_videos import predict_videos

        predict_videos(values, videos)
        return
    if values.shard:
        raise ValueError(
            f"--shard: expected a folder of videos or a .txt file that lists them as"
            f" --source, got {values.source[0]}, one video"
        )
    check_one_process(values.source[0])
    predict_video(values, begin)


def check_one_process(source: str) -> None:
    """Raises ValueError, in every process, if there are several."""
    from vis_jax.training.distributed import explicit_address, is_one_of_several

    if explicit_address(os.environ) is None and not is_one_of_several(os.environ):
        return  # without initialising the devices, which takes seconds
    import jax

    from vis_jax.commands.processes import together

    with together():
        if jax.process_count() > 1:
            raise ValueError(
                "--source: expected many videos for several processes, got"
                f" {source}, one video"
            )


def predict_video(values: flags.FlagValues, begin: float) -> None:
    """Predicts one video.

    Args:
      values: the flags.
      begin: start time of the command, from `time.perf_counter`.
    """
    from vis_jax.predict.staging import check_output, check_writable

    check_output(values.output, overwrite=values.overwrite)
    check_writable(values.output)
    from vis_jax.commands import predict_modes
    from vis_jax.commands.run_settings import with_classes
    from vis_jax.evaluate import infer
    from vis_jax.predict import loop
    from vis_jax.predict.choice import ObjectFilter
    from vis_jax.predict.progress import Progress

    config = read_config(values)
    checkpoint = parts.checkpoint_of(values)
    categories = parts.read_classes(values.workdir, checkpoint)
    source = _open(values)
    wanted = read_wanted(values)
    ObjectFilter([name for _, name in categories], wanted.classes, wanted.tracks)
    tell(loop.warning_lines(source, wanted))
    parts.keep_user_compilations()
    config = with_classes(config, len(categories))
    fixed = predict_modes.mode_is_set(values)
    config, note = predict_modes.for_source(config, source, fixed=fixed)
    tell([note] if note else [], "note")
    system = parts.build_system(config)
    whole = system.window.length is None
    loop.check_live(source, whole)
    variables = parts.load_model(system, checkpoint)
    program = infer.make_program(system, variables)
    memory = predict_modes.memory_line(program, source, config.test)
    print(f"{'memory':<14}{memory}", flush=True)
    stream = infer.run(program, config.test)
    clock = Progress(source.likely_frames, terminal=sys.stderr.isatty())
    clock.add("start", time.perf_counter() - begin)
    place = written_locally(values.output, replaced=loop.FILES)
    with place as folder, clock:
        done = loop.predict(
            source,
            folder,
            loop.Finder(stream, categories, config.test.top, whole),
            wanted=wanted,
            overwrite=values.overwrite,
            clock=clock,
        )
    tell(source.warnings)
    report(done, clock, values.output, threshold=values.score_threshold)
    if done.stopped:
        sys.exit(128 + done.stopped)


def _open(values: flags.FlagValues) -> "Source":
    """Opens the part of a video given by the flags.

    Raises:
      ValueError: it cannot be read; names it.
    """
    from vis_jax.predict.part import read_part
    from vis_jax.predict.sources import open_source

    raw = raw_size(values.raw)
    return open_source(
        values.source[0],
        raw=raw,
        fps=values.fps if raw else None,
        part=read_part(values.start, values.end, values.every),
    )
