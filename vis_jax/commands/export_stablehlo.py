"""Export format stablehlo: programs that JAX runs without the model's code.

`vis_jax.load` reads the folder. Weights are stored separately, once for all sizes, so
that program files stay small.
"""

import re
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

from vis_jax.commands.export_format import WrittenExport
from vis_jax.commands.export_safetensors import TOLERANCES
from vis_jax.export.agreement import Tolerance

if TYPE_CHECKING:
    from vis_jax.commands.run_settings import RunSettings
    from vis_jax.commands.saved_model import SavedModel
    from vis_jax.export.manifest import ClipShape
    from vis_jax.structures import Window
    from vis_jax.systems.system import TestSettings

# The compiler may change the summation order; docs/export.md has measurements.
_CLOSE = Tolerance(scores=1e-3, pixels=0.999)
_FRAME = (720, 1280)  # video size in pixels for the default canvas

USAGE = """```python
import vis_jax

model = vis_jax.load("path/to/this/folder")
video = model.track("video.mp4")
```

It runs on CPUs, CUDA GPUs and TPUs with JAX, without Flax, TensorFlow or a config.
`program.json` names the arrays that go into each program and come out of it; any
program can run them by itself:

```python
import jax
import numpy as np
from jax import export
from safetensors.flax import load_file


def read(path):
    with open(path, "rb") as file:
        return export.deserialize(bytearray(file.read()))


start, step = read("start_SHAPE.jax_export"), read("step_SHAPE.jax_export")
variables = load_file("model.safetensors")
state = start.call()  # before the first clip
clip = {
    "images": np.zeros((FRAMES, HEIGHT, WIDTH, 3), np.uint8),
    "frame_valid": np.ones(FRAMES, bool),
    "size": np.array([HEIGHT, WIDTH], np.int32),  # size of the content, at the top left
    "start": np.int32(0),  # index of the first frame
    "last": np.bool_(True),  # whether this clip ends the video
}
state, predictions = step.call(variables, state, clip)
```"""
_BATCHED = (
    "state, predictions = step",
    """# Any number of videos at once, along a leading axis; here two.
state, clip = jax.tree.map(lambda x: np.stack([x, x]), (state, clip))
state, predictions = step""",
)


def define(values: flags.FlagValues) -> None:
    """Adds the flags of this format."""
    flags.DEFINE_list(
        "size",
        None,
        "height x width in pixels of one or several canvases to export, such as"
        " 384x640; multiples of 32, or of 28 for patches of 14 pixels; default: the"
        " canvas of 16:9 frames",
        flag_values=values,
    )
    flags.DEFINE_list(
        "frames",
        None,
        "clip lengths to export, such as 16 or 16,32, for systems that read whole"
        " videos (test.mode video); default: any length, if the system allows it",
        flag_values=values,
    )
    flags.DEFINE_bool(
        "batched",
        False,
        "for --format stablehlo: steps take any number of videos at once, each with its"
        " own state",
        flag_values=values,
    )


def write(model: "SavedModel", folder: Path, values: flags.FlagValues) -> WrittenExport:
    """Writes the programs, program.json and model.safetensors."""
    from vis_jax.commands.stored_programs import read_stored, shapes_of
    from vis_jax.converters.files import open_safetensors
    from vis_jax.export.manifest import canvases_of, write_manifest
    from vis_jax.export.stablehlo import manifest_of, write_programs
    from vis_jax.training.weights_file import WEIGHTS_FILE, write_weights

    system = model.system
    shapes, window = clip_shapes(model.config, system.window, values)
    write_weights(folder, model.variables, values.dtype)
    with open_safetensors(folder / WEIGHTS_FILE) as entries:
        forms = shapes_of(entries)
    programs = write_programs(
        folder, system, forms, shapes,
        multiple=model.config.test.chunk, batched=values.batched,
    )  # fmt: skip
    manifest = manifest_of(
        system._replace(window=window),
        model.config.test,
        programs,
        name=model.config.system,
        categories=model.categories,
        batched=values.batched,
    )
    write_manifest(folder, manifest)
    return WrittenExport(
        reopen=lambda: read_stored(folder).stream,
        tolerance=_CLOSE if values.dtype == "float32" else TOLERANCES[values.dtype],
        usage=_usage(shapes[0], window, batched=values.batched),
        record={"dtype": values.dtype},
        canvases=canvases_of(shapes),
        most_frames=max(window.buckets) if values.frames else None,
    )


def _usage(shape: "ClipShape", window: "Window", *, batched: bool) -> str:
    """Fills in `USAGE` with the files and sizes of one program."""
    frames = window.buckets[0] if shape.frames is None else shape.frames
    words = {
        "SHAPE": shape,
        "FRAMES": frames,
        "HEIGHT": shape.height,
        "WIDTH": shape.width,
    }
    text = USAGE.replace(*_BATCHED) if batched else USAGE
    for word, value in words.items():
        text = text.replace(word, str(value))
    return text


def clip_shapes(
    config: "RunSettings", window: "Window", values: flags.FlagValues
) -> "tuple[list[ClipShape], Window]":
    """Returns the clip shapes to export, and the window that cuts videos into clips.

    Args:
      config: config of the model.
      window: window of its system.
      values: flags.

    Raises:
      ValueError: a flag is wrong, or the model runs each video at several sizes.
    """
    from vis_jax.export.manifest import MOST_FRAMES, ClipShape

    if config.test.tta:
        raise ValueError(
            f"--format {values.format}: expected test.tta (), as a program is of one"
            f" size, got {config.test.tta}; set --config.test.tta=()"
        )
    canvases = [*dict.fromkeys(_canvases(config.test, values.size, window))]
    lengths: list[int | None] = [window.length]
    if window.length is not None and values.frames is not None:
        raise ValueError(
            f"--frames: expected none for a system that reads {window.length} frames at"
            f" a time, got {','.join(values.frames)}"
        )
    if values.frames is not None:
        lengths = [*sorted({_number(text, MOST_FRAMES) for text in values.frames})]
    if window.length is None:
        # A program for any number of frames takes multiples of this.
        known = tuple(n for n in lengths if n is not None)
        window = window._replace(buckets=known or (2 * config.test.chunk,))
    return [ClipShape(n, *size) for size in canvases for n in lengths], window


def _canvases(
    test: "TestSettings", sizes: list[str] | None, window: "Window"
) -> list[tuple[int, int]]:
    """Returns height and width in pixels of each canvas."""
    if sizes is None:
        from vis_jax.evaluate.clips import place_frames

        return [place_frames(_FRAME, test, multiple=window.multiple).canvas]
    from vis_jax.export.manifest import MOST_SIDE

    found = []
    for text in sizes:
        match = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", text)
        sides = (int(match[1]), int(match[2])) if match else (1, 1)
        if any(side % window.multiple or side > MOST_SIDE for side in sides):
            raise ValueError(
                f"--size: expected height x width in multiples of {window.multiple} up"
                f" to {MOST_SIDE}, as 384x640, got {text}"
            )
        found.append(sides)
    return found


def _number(text: str, most: int) -> int:
    if not re.fullmatch(r"[1-9]\d{0,4}", text) or int(text) > most:
        raise ValueError(
            f"--frames: expected numbers of frames up to {most}, as 16,32, got {text}"
        )
    return int(text)
