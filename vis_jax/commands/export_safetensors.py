"""The format safetensors of `export`: weights, config and classes.

`vis_jax.load`, --checkpoint and --config.init_from read the folder.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

from vis_jax.commands.export_format import Written
from vis_jax.export.agreement import EXACT, Tolerance

if TYPE_CHECKING:
    from vis_jax.commands.saved_model import SavedModel

# Of parameters rounded to 8 bits of mantissa; docs/export.md has what was measured.
ROUNDED = Tolerance(scores=0.05, pixels=0.9)

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
        ["float32", "bfloat16"],
        "of the parameters in --format safetensors: bfloat16 rounds them, and halves"
        " the file",
        flag_values=values,
    )


def write(model: "SavedModel", folder: Path, values: flags.FlagValues) -> Written:
    """Writes model.safetensors, config.json and categories.json."""
    from vis_jax.commands.saved_model import write_description
    from vis_jax.training.weights_file import write_weights

    write_weights(folder, model.variables, values.dtype)
    write_description(folder, model)

    def reopen():
        from vis_jax.commands.saved_model import read_model
        from vis_jax.evaluate.infer import make_stream

        found = read_model(folder, {})
        return make_stream(found.system, found.variables, found.config.test)

    return Written(
        reopen=reopen,
        tolerance=EXACT if values.dtype == "float32" else ROUNDED,
        usage=USAGE,
        record={"dtype": values.dtype},
    )
