"""`predict` on many videos, by all devices and processes."""

import hashlib
import json
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from absl import flags
from etils import epath

from data_pipeline.errors import printable
from vis_jax.commands import parts
from vis_jax.commands.config_flag import read_config
from vis_jax.commands.predict_flags import read_wanted
from vis_jax.commands.predict_lines import found_line, tell
from vis_jax.paths import written_locally

if TYPE_CHECKING:
    from vis_jax.commands.predict_modes import Choice, Finders
    from vis_jax.commands.run_settings import RunSettings
    from vis_jax.evaluate.shares import Share
    from vis_jax.evaluate.spread import Left
    from vis_jax.predict.many import FoundVideos, OneVideo
    from vis_jax.predict.part import Part
    from vis_jax.predict.source import Source
    from vis_jax.predict.writer import RequestedOutputs

SOME_FAILED = 3  # exit code


class Job(NamedTuple):
    """Settings shared by all videos."""

    output: str  # on a disk or in a bucket
    run_id: str  # digest of everything but the video that results depend on
    wanted: "RequestedOutputs"
    overwrite: bool
    part: "Part"  # part of each video to read


def predict_videos(values: flags.FlagValues, videos: "FoundVideos") -> None:
    """Predicts the videos of a folder or list; exits with SOME_FAILED if some fail.

    Raises:
      ValueError: an error that does not concern a single video.
      OSError: an output cannot be written; names the file.
    """
    import jax

    from vis_jax.commands.processes import check_alone, own_share, together
    from vis_jax.evaluate.shares import read_share

    if values.raw is not None:
        got = ", ".join(values.source)
        raise ValueError(f"--raw: expected - as the source, got {got}")
    config = read_config(values)
    share = read_share(values.shard) if values.shard else None
    with together():
        if share is not None:
            check_alone("--shard")
        if jax.process_index() == 0:
            tell([f"{path}: no video, left out" for path in videos.ignored])
        failed = _predict(values, config, videos.videos, share or own_share())
        if failed:
            sys.exit(SOME_FAILED)


def _predict(
    values: flags.FlagValues,
    config: "RunSettings",
    videos: Sequence["OneVideo"],
    share: "Share",
) -> bool:
    """Predicts this process's share; returns whether a video of any process failed."""
    import jax

    from vis_jax.commands.evaluate import fingerprint
    from vis_jax.commands.predict_modes import Finders, mode_is_set
    from vis_jax.commands.run_settings import with_classes
    from vis_jax.evaluate.shares import divide
    from vis_jax.predict.choice import ObjectFilter
    from vis_jax.predict.errors import PredictError
    from vis_jax.predict.loop import check_wanted
    from vis_jax.predict.part import read_part
    from vis_jax.training.devices import device_line

    wanted, part = (
        read_wanted(values),
        read_part(values.start, values.end, values.every),
    )
    check_wanted(wanted)
    output = epath.Path(values.output)
    if output.exists() and not output.is_dir():
        raise PredictError(f"{output}: expected a folder, found a file")
    checkpoint = parts.checkpoint_of(values)
    categories = parts.read_classes(values.workdir, checkpoint)
    parts.keep_user_compilations()
    config = with_classes(config, len(categories))
    system = parts.build_system(config)
    variables = parts.load_model(system, checkpoint)
    ObjectFilter([name for _, name in categories], wanted.classes, wanted.tracks)
    inputs = json.dumps([fingerprint(config, variables), categories, wanted, part])
    run_id = hashlib.sha256(inputs.encode()).hexdigest()
    job = Job(values.output, run_id, wanted, values.overwrite, part)
    shares = divide([video.size for video in videos], share.total)
    if jax.process_index() == 0:
        print(device_line())
    fixed = mode_is_set(values)
    finders = Finders(config, variables, categories, fixed=fixed)
    return _predict_share(job, finders, videos, shares, share)


def _predict_share(
    job: Job,
    finders: "Finders",
    videos: Sequence["OneVideo"],
    shares: Sequence[Sequence[int]],
    share: "Share",
) -> bool:
    """Runs the videos of a share; returns whether one of any process failed."""
    import jax

    from vis_jax.commands.processes import SharedProgress, all_texts
    from vis_jax.evaluate.shares import summary
    from vis_jax.evaluate.spread import spread
    from vis_jax.predict.formats import FORMATS

    own = [videos[index] for index in shares[share.number - 1]]
    several = jax.process_count() > 1
    if jax.process_index() == 0 and share.total > 1:
        sizes = [video.size for video in videos]
        print(f"videos        {summary(sizes, shares, unit='bytes')}", flush=True)
    # Videos are staged in it, so that a later run finds remains of a killed one.
    output = epath.Path(job.output)
    output.mkdir(parents=True, exist_ok=True)
    files = [FORMATS[name].file for name in job.wanted.formats]
    waiting = [one for one in own if not one.finished(job.output, job.run_id, files)]
    count = len(own) - len(waiting)
    failed = []
    with SharedProgress("predict", len(videos) if several else len(own)) as progress:
        progress.tell(count)
        devices = range(len(finders))
        workers = [partial(_try, job, partial(finders.find, k)) for k in devices]
        for _, error in spread(waiting, workers):
            if error:
                failed.append(error)
            count += 1
            progress.tell(count)
        progress.wait()
    failed = all_texts("predict", failed)
    if jax.process_index() == 0:
        total = len(videos) if several else len(own)
        print(f"videos        {total - len(failed)} of {total}")
        print(f"output        {output}")
        for text in failed:
            print(f"failed: {printable(text)}", file=sys.stderr)
    return bool(failed)


def _try(
    job: Job,
    find: "Callable[[Source], Choice]",
    video: "OneVideo",
    left: "Left",
) -> str | None:
    """Predicts a video and prints what was found; returns its error, if any.

    Raises:
      OSError: the output cannot be written, which would affect every video.
    """
    import jax

    from vis_jax.evaluate.spread import leaving
    from vis_jax.predict.loop import FILES, predict_whole, warning_lines
    from vis_jax.predict.sources import open_source
    from vis_jax.predict.staging import check_output

    try:
        source = open_source(video.path, part=job.part)
        tell(warning_lines(source, job.wanted))
        finder, note, memory = find(source)
        tell([note] if note else [], "note")
        _print("memory", f"{video.name}: {memory}")
        target = os.path.join(job.output, video.name)
        check_output(target, overwrite=job.overwrite)
        with written_locally(target, replaced=FILES) as folder:
            tracks = predict_whole(
                source,
                folder,
                finder._replace(stream=leaving(finder.stream, left)),
                video.record(job.run_id),
                wanted=job.wanted,
                overwrite=job.overwrite,
            )
        tell(source.warnings)
        line = f"{video.name}: {found_line(tracks, job.wanted.score_threshold)}"
        _print("found", line)
    except MemoryError:
        return f"{video.path}: not enough memory"
    except OSError as error:
        if not _is_of(video, error):
            raise
        return f"{error.filename}: {error.strerror}"
    except (ValueError, jax.errors.JaxRuntimeError) as error:  # e.g. out of memory
        text = " ".join(str(error).split())
        return text if video.path in text else f"{video.path}: {text}"
    return None


def _print(kind: str, text: str) -> None:
    print(printable(f"{kind:<14}{text}"), flush=True)


def _is_of(video: "OneVideo", error: OSError) -> bool:
    """Returns whether the error names the video, or a file in it."""
    if not isinstance(error.filename, str | os.PathLike):
        return False
    return Path(error.filename).absolute().is_relative_to(Path(video.path).absolute())
