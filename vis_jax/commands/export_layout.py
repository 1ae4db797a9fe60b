"""`export --layout`: writes weights under the names of another library."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vis_jax.commands.export_format import WrittenExport
from vis_jax.commands.export_safetensors import TOLERANCES

if TYPE_CHECKING:
    from vis_jax.commands.saved_model import SavedModel
    from vis_jax.results.frame import Stream

USAGE = """The tensors in `model.safetensors` have the names and the layout of
`{layout}`, as `vis_jax` reads them:

```
python -m vis_jax.main convert --kind {layout} --source path/to/this/folder \\
    --config ..
```

PyTorch reads them with `safetensors.torch.load_file`, for `load_state_dict` of a model
of the same sizes."""


def write_layout(
    model: "SavedModel", folder: Path, layout: str, dtype: str
) -> WrittenExport:
    """Writes model.safetensors under other names, and config.json for Hugging Face.

    Args:
      model: model of a run.
      folder: new, empty folder.
      layout: a kind of `convert`.
      dtype: float32 or bfloat16, for float32 variables.

    Raises:
      ValueError: there is no such layout, or it cannot represent the model.
    """
    from vis_jax.commands.convert import fields_of_model
    from vis_jax.converters.files import CONFIG
    from vis_jax.converters.load import KINDS
    from vis_jax.converters.narrow import rounded
    from vis_jax.converters.publish import publish
    from vis_jax.converters.report import modules_of
    from vis_jax.converters.safetensors_file import write_safetensors
    from vis_jax.converters.sizes import config_of
    from vis_jax.formats.disk import naming
    from vis_jax.training.weights_file import WEIGHTS_FILE

    if layout not in KINDS:
        raise ValueError(f"--layout: expected one of {sorted(KINDS)}, got {layout!r}")
    published = publish(model.variables, layout)
    tensors = published.tensors
    fields = fields_of_model(model.config)
    if layout == "huggingface":
        content = config_of(fields, [name for _, name in model.categories])
        with naming(folder / CONFIG):
            (folder / CONFIG).write_text(json.dumps(content, indent=1) + "\n")
    note = _check_style(tensors, layout, fields)
    if dtype == "bfloat16":
        single = {n: x for n, x in tensors.items() if x.dtype == np.float32}
        tensors = tensors | {name: rounded(x) for name, x in single.items()}
    with naming(folder / WEIGHTS_FILE):
        # Transformers requires the format "pt" for files with PyTorch names.
        write_safetensors(folder / WEIGHTS_FILE, tensors, metadata={"format": "pt"})
    left = [f"{name} left out: no place" for name in modules_of(published.left)]
    return WrittenExport(
        reopen=lambda: _reopened(model, folder, layout),
        tolerance=TOLERANCES[dtype],
        usage=USAGE.format(layout=layout),
        record={"layout": layout, "dtype": dtype},
        lines=(f"{len(tensors)} tensors as {layout} names them", *note, *left),
    )


def _reopened(model: "SavedModel", folder: Path, layout: str) -> "Stream":
    """Returns a stream with the file converted back, and own values elsewhere."""
    from vis_jax.converters.load import convert_file
    from vis_jax.evaluate.infer import make_stream

    variables, _ = convert_file(folder, model.variables, layout)
    return make_stream(model.system, variables, model.config.test)


def _check_style(
    tensors: dict[str, np.ndarray], layout: str, fields: dict[str, Any]
) -> tuple[str, ...]:
    """Returns a note on the backbone style, if the file does not determine it.

    Raises:
      ValueError: models of this layout have a different style.
    """
    from vis_jax.converters.files import WeightsSource
    from vis_jax.converters.style import style_of

    ours = fields.get("model.backbone.style")
    if ours is None or layout in ("swin", "vgg16", "osmn"):
        return ()
    theirs = style_of(
        WeightsSource((Path("model"),), tensors, {}, None, (), ()), layout
    ).style
    if theirs and theirs != ours:
        raise ValueError(
            f"--layout {layout}: expected model.backbone.style {theirs!r}, which its"
            f" models have, got {ours!r}"
        )
    return () if theirs else (f"convert it again with --style={ours}",)
