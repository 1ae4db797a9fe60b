"""Export format onnx: a step with its state as inputs and outputs.

Needs the packages of the extra `onnx`; ONNX Runtime checks the files.
"""

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

from vis_jax.commands.export_format import WrittenExport
from vis_jax.commands.export_stablehlo import clip_shapes
from vis_jax.export.agreement import Tolerance

if TYPE_CHECKING:
    from vis_jax.commands.saved_model import SavedModel
    from vis_jax.results.frame import Stream

# Summation order differs between libraries; docs/export.md has measurements.
_CLOSE = Tolerance(scores=1e-2, pixels=0.99)
_PACKAGES = ("jax2onnx", "onnx", "onnxruntime")

USAGE = """```python
import onnxruntime
from safetensors.numpy import load_file

session = onnxruntime.InferenceSession("step_SHAPE.onnx")
state = load_file("start_SHAPE.safetensors")  # before the first clip
```

All inputs have to be given: `state/..`, `images` (uint8 frames x height x width x 3),
`frame_valid`, `size` (height and width of the content, at the top left), `start` (index
of the first frame) and `last` (whether the video ends with it). Outputs are
`next_state/..`, which is the state of the next clip, and the predictions."""


def define(values: flags.FlagValues) -> None:
    """Adds no flag: --size and --frames are those of stablehlo."""


def write(model: "SavedModel", folder: Path, values: flags.FlagValues) -> WrittenExport:
    """Writes a step in ONNX and its initial state for every clip shape."""
    _check_packages(values)
    import jax
    import numpy as np

    from vis_jax.converters.safetensors_file import write_safetensors
    from vis_jax.evaluate.stream import Program, run_program
    from vis_jax.export.manifest import START, STEP, canvases_of, file_name
    from vis_jax.export.onnx_file import ARRAYS, ONNX, OnnxSystem, write_onnx
    from vis_jax.export.stablehlo import first_state, named_step, shapes_like
    from vis_jax.formats.disk import naming
    from vis_jax.params import flatten

    system = model.system
    shapes, window = clip_shapes(model.config, system.window, values)
    if any(shape.frames is None for shape in shapes):
        raise ValueError(
            "--frames: expected numbers of frames with onnx for a system that reads"
            " whole videos, got none; --config.test.mode=clip reads clips"
        )
    canvases = canvases_of(shapes)
    variables, states = flatten(model.variables), {}
    for shape in shapes:
        clip = shapes_like(shape)
        step = named_step(system, variables, clip)
        with _naming_system(model.config.system):
            write_onnx(folder / file_name(STEP, shape, ONNX), step, variables)
        state = jax.tree.map(np.asarray, first_state(system, clip))
        path = folder / file_name(START, shape, ARRAYS)
        with naming(path):
            write_safetensors(path, state)
        states[shape] = state

    def reopen() -> "Stream":
        with _naming_system(model.config.system):
            onnx = OnnxSystem(folder, states)
        program = Program(
            onnx.start, onnx.step, window, system.render, system.limit, canvases
        )
        return run_program(program, model.config.test)

    return WrittenExport(
        reopen=reopen,
        tolerance=_CLOSE,
        usage=USAGE.replace("SHAPE", str(shapes[0])),
        canvases=canvases,
        most_frames=None if window.length else max(window.buckets),
    )


def _check_packages(values: flags.FlagValues) -> None:
    """Raises ValueError if a required package is missing."""
    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise ValueError(
            f"--format onnx: expected the extra onnx, as pip install 'vis_jax[onnx]'"
            f" installs it, got no {', '.join(missing)}"
        )
    if values.dtype != "float32":
        raise ValueError(f"--dtype: expected float32 with onnx, got {values.dtype}")


@contextmanager
def _naming_system(name: str) -> Iterator[None]:
    """Adds the name of the system to errors."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"--format onnx: {name}: {error}") from error
