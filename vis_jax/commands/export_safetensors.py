"""Export format safetensors: weights, config and classes.

`vis_jax.load`, --checkpoint and --config.init_from read the folder.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

from vis_jax.commands.export_format import WrittenExport
from vis_jax.export.agreement import EXACT, Tolerance

if TYPE_CHECKING:
    from vis_jax.commands.saved_model import SavedModel

# By dtype. bfloat16 has 8 bits of mantissa; int8 has 8 bits with a scale per output
# channel; docs/export.md has measurements.
TOLERANCES = {
    "float32": EXACT,
    "bfloat16": Tolerance(scores=0.05, pixels=0.9),
    "int8": Tolerance(scores=0.2, pixels=0.6),
}

USAGE = """```python
import vis_jax

model = vis_jax.load("path/to/this/folder")
video = model.track("video.mp4")
```

`python -m vis_jax.main` takes the folder as `--workdir` of `predict` and `evaluate`, as
`--checkpoint`, and as `--config.init_from` of a training."""


def define(values: flags.FlagValues) -> None:
    """Adds the flags of this format."""
    flags.DEFINE_enum(
        "dtype",
        "float32",
        [*TOLERANCES],
        "dtype of the parameters, for --format safetensors and stablehlo: bfloat16"
        " halves the file; int8 quantises kernels (weights only, with qwix) and leaves"
        " about a quarter",
        flag_values=values,
    )

    flags.DEFINE_string(
        "layout",
        None,
        "for --format safetensors: use another library's names, a --kind of convert"
        " such as mask_rcnn_torchvision (docs/export.md); default: our own",
        flag_values=values,
    )


def write(model: "SavedModel", folder: Path, values: flags.FlagValues) -> WrittenExport:
    """Writes model.safetensors, config.json and categories.json.

    With --layout, weights get the names of that layout.
    """
    if values.layout:
        from vis_jax.commands.export_layout import write_layout

        return write_layout(model, folder, values.layout, values.dtype)
    from vis_jax.commands.saved_model import write_description
    from vis_jax.training.weights_file import write_weights

    write_weights(folder, model.variables, values.dtype)
    write_description(folder, model)

    def reopen():
        from vis_jax.commands.saved_model import read_model
        from vis_jax.evaluate.infer import make_stream

        found = read_model(folder, {})
        return make_stream(found.system, found.variables, found.config.test)

    return WrittenExport(
        reopen=reopen,
        tolerance=TOLERANCES[values.dtype],
        usage=USAGE,
        record={"dtype": values.dtype},
    )
