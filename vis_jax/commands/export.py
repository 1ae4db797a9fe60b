"""Exports a trained model for other programs, with a model card.

safetensors: the weights, which vis_jax loads on any machine; with --layout under the
names of another library. stablehlo: programs that JAX runs without the model's code.
onnx: a step with its state, for ONNX Runtime. At the end, the export and the original
model run on the same clip; if they differ by more than the tolerance, nothing is
written.

examples:
  python -m vis_jax.main export --workdir runs/shapes --output exported \\
      --format safetensors --license apache-2.0
  python -m vis_jax.main export --workdir runs/shapes --output small \\
      --format safetensors --dtype bfloat16 --source video.mp4
  python -m vis_jax.main export --workdir runs/shapes --output programs \\
      --format stablehlo --size 384x640,640x384 --config.test.mode=clip
"""

import importlib
import importlib.util
import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
from absl import flags
from etils import epath

from vis_jax.commands import parts
from vis_jax.commands.config_flag import define_config, read_config
from vis_jax.commands.export_format import ExportFormat, WrittenExport
from vis_jax.commands.numbers import short_number
from vis_jax.export.agreement import Agreement, Tolerance, compare
from vis_jax.paths import is_incomplete, written_locally

if TYPE_CHECKING:
    from vis_jax.commands.saved_model import SavedModel
    from vis_jax.results.frame import Stream

# The module of each format; see `export_format`.
FORMATS = {
    "safetensors": "vis_jax.commands.export_safetensors",
    "stablehlo": "vis_jax.commands.export_stablehlo",
    "onnx": "vis_jax.commands.export_onnx",
}

CARD = "README.md"
AP_VIDEOS = 8  # number of videos for measuring the change in AP


def define(values: flags.FlagValues, arguments: list[str]) -> None:
    """Adds the flags of this command and of every format."""
    define_config(values, arguments)
    texts = {
        **parts.MODEL_FLAGS,
        "output": "folder for the export; must not exist",
        "license": "of the weights, for the model card, such as apache-2.0",
        "source": "video file or folder of frames to check the export on; default: a"
        " clip of moving shapes",
    }
    for name, text in texts.items():
        flags.DEFINE_string(name, None, text, flag_values=values)
    flags.DEFINE_enum(
        "format", "safetensors", [*FORMATS], "export format", flag_values=values
    )
    sizes = {
        "height": (96, "pixels of the frames of moving shapes"),
        "width": (160, "pixels of the frames of moving shapes"),
        "check_frames": (6, "maximum number of frames to check the export on"),
    }
    for name, (number, text) in sizes.items():
        flags.DEFINE_integer(name, number, text, lower_bound=1, flag_values=values)
    flags.DEFINE_integer(
        "ap_videos",
        None,
        "number of videos of moving shapes for measuring the change in AP with --dtype"
        f" bfloat16 or int8; 0: not measured; default: {AP_VIDEOS}",
        lower_bound=0,
        flag_values=values,
    )
    tolerances = {
        "score_tolerance": "maximum difference of a class probability",
        "pixel_tolerance": "minimum fraction of equal mask pixels",
    }
    for name, text in tolerances.items():
        text = f"{text}; default: that of the format (docs/export.md)"
        flags.DEFINE_float(
            name, None, text, lower_bound=0, upper_bound=1, flag_values=values
        )
    for name in FORMATS:
        _format(name).define(values)


def run(values: flags.FlagValues) -> None:
    """Runs the export."""
    _check(values)
    from vis_jax.commands.saved_model import make_model
    from vis_jax.predict.staging import publish, staging

    config = read_config(values)
    checkpoint = parts.checkpoint_of(values)
    categories = parts.read_classes(values.workdir, checkpoint)
    parts.keep_user_compilations()
    model = make_model(config, categories, checkpoint)
    frames = list(check_frames(values))
    place = written_locally(values.output, replaced=None)
    with place as local, staging(local) as folder:
        written = _format(values.format).write(model, folder, values)
        _describe(model, folder, written, values)
        streams = streams_of(model, written)
        agreement = _check_itself(streams, frames[: written.most_frames])
        tolerance = _tolerance(values, written.tolerance)
        if not agreement.within(tolerance):
            raise ValueError(
                f"--format {values.format}: expected a difference of scores up to"
                f" {tolerance.scores:g} and at least {tolerance.pixels:g} of the mask"
                f" pixels equal, got {agreement.scores:g} and {agreement.pixels:.6f};"
                " nothing is written"
            )
        lines = [("note", line) for line in written.lines]
        lines += _ap_lines(model, written, streams, values)
        files = {p.name: p.stat().st_size for p in sorted(folder.iterdir())}
        _check_new(values.output)  # may have been created meanwhile
        publish(folder, local, [])
    _report(values.output, files, lines, agreement)


def _format(name: str) -> ExportFormat:
    return cast(ExportFormat, importlib.import_module(FORMATS[name]))


def _check(values: flags.FlagValues) -> None:
    """Raises ValueError if flags are missing, or do not fit each other."""
    parts.checkpoint_of(values)
    if not values.output:
        raise ValueError("--output: expected a path, got none")
    _check_new(values.output)
    if values.layout and values.format != "safetensors":
        raise ValueError(
            f"--layout: expected --format safetensors beside it, got {values.format}"
        )
    for name in ("size", "frames"):
        if values[name].value is not None and values.format == "safetensors":
            raise ValueError(f"--{name}: expected none with --format safetensors")
    if values.batched and values.format != "stablehlo":
        raise ValueError(
            f"--batched: expected --format stablehlo beside it, got {values.format}"
        )
    if values.ap_videos is not None and values.dtype == "float32":
        raise ValueError(
            "--ap_videos: expected --dtype bfloat16 or int8 beside it, got float32"
        )
    if values.dtype == "int8":
        _check_int8(values)
    licence = values.license or ""
    if "\n" in licence or len(licence) > 99:
        raise ValueError(f"--license: expected a name on one line, got {licence!r:.99}")


def _check_int8(values: flags.FlagValues) -> None:
    if values.layout:
        raise ValueError(
            f"--dtype: expected float32 or bfloat16 with --layout {values.layout},"
            " whose readers do not support int8 scales, got int8"
        )
    if importlib.util.find_spec("qwix") is None:
        raise ValueError(
            "--dtype int8: expected the extra int8, as pip install 'vis_jax[int8]'"
            " installs it, got no qwix"
        )


def _check_new(output: str) -> None:
    """Raises ValueError if the output exists, unless its copy to a bucket broke off."""
    if epath.Path(output).exists() and not is_incomplete(output):
        raise ValueError(f"--output: expected a new folder, got {output}, which exists")


def check_frames(values: flags.FlagValues) -> Iterator[np.ndarray]:
    """Yields the frames for checking the export: uint8 [H, W, 3].

    Raises:
      ValueError: --source cannot be read.
    """
    if values.source:
        from vis_jax.predict.sources import open_source

        yield from islice(open_source(values.source), values.check_frames)
        return
    from data_pipeline.moving_shapes.dataset import MovingShapes

    count = values.check_frames
    size = dict(height=values.height, width=values.width)
    shapes = MovingShapes("test", num_videos=1, length=count, **size)
    yield from shapes.read_frames(0, np.arange(count))


def _describe(
    model: "SavedModel", folder: Path, written: WrittenExport, values: flags.FlagValues
) -> None:
    """Writes the record and the model card."""
    from vis_jax.commands.export_facts import facts_of
    from vis_jax.export.card import card_of
    from vis_jax.formats.disk import naming
    from vis_jax.training.model_folder import RECORD, VERSION

    record = {
        "format": values.format,
        "version": VERSION,
        "system": model.config.system,
        **written.record,
    }
    with naming(folder / RECORD):
        (folder / RECORD).write_text(json.dumps(record, indent=1) + "\n")
    checkpoint = parts.checkpoint_of(values)
    facts = facts_of(model, values.workdir or checkpoint, checkpoint)
    card = card_of(facts, licence=values.license or "unknown", usage=written.usage)
    with naming(folder / CARD):
        (folder / CARD).write_text(card)


def streams_of(model: "SavedModel", written: WrittenExport) -> "tuple[Stream, Stream]":
    """Returns the streams that run the model and the export."""
    from vis_jax.evaluate.infer import make_program, make_stream
    from vis_jax.evaluate.stream import run_program

    test = model.config.test
    if written.canvases:
        program = make_program(model.system, model.variables)
        stream = run_program(program._replace(canvases=written.canvases), test)
    else:
        stream = make_stream(model.system, model.variables, test)
    return stream, written.reopen()


def _check_itself(
    streams: "tuple[Stream, Stream]", frames: list[np.ndarray]
) -> Agreement:
    """Compares the outputs of export and model on a clip."""
    expected = list(streams[0](frames))
    return compare(streams[1](frames), expected)


def _ap_lines(
    model: "SavedModel",
    written: WrittenExport,
    streams: "tuple[Stream, Stream]",
    values: flags.FlagValues,
) -> list[tuple[str, str]]:
    """Reports the change in AP on moving shapes; nothing if weights are exact."""
    from vis_jax.commands.export_ap import SPLIT, change_in_ap, videos_for

    count = AP_VIDEOS if values.ap_videos is None else values.ap_videos
    if values.dtype == "float32" or not count:
        return []
    size = (values.height, values.width)
    shapes = videos_for(model, count, size, written.most_frames)
    if shapes is None:
        reason = "not measured: the classes are not those of moving shapes"
        return [("change in AP", reason)]
    before, after = change_in_ap(streams, shapes, model.config.test.top)
    videos = "1 video" if count == 1 else f"{count} videos"
    return [
        ("AP", f"{100 * before:.2f}, {videos} of moving shapes ({SPLIT})"),
        (f"AP in {values.dtype}", f"{100 * after:.2f}"),
        ("change in AP", f"{100 * (after - before):+.2f}"),
    ]


def _tolerance(values: flags.FlagValues, default: Tolerance) -> Tolerance:
    scores, pixels = values.score_tolerance, values.pixel_tolerance
    return Tolerance(
        default.scores if scores is None else scores,
        default.pixels if pixels is None else pixels,
    )


def _report(
    output: str,
    files: dict[str, int],
    lines: list[tuple[str, str]],
    found: Agreement,
) -> None:
    """Prints the written files, and the deviation from the model."""
    for name, size in files.items():
        print(f"{name:<22}{short_number(size)}B")
    print(f"{'check':<22}{found.frames} frames, {found.tracks} tracks")
    if not found.tracks:
        print(f"{'note':<22}no object was found, so nothing was compared; see --source")
    print(f"{'score difference':<22}{found.scores:g}")
    print(f"{'equal mask pixels':<22}{found.pixels:.6f}")
    for name, text in lines:
        print(f"{name:<22}{text}")
    print(f"{'export':<22}{output}")
