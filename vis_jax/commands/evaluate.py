"""Predicts every video of a data set and scores the result.

Writes results.json, truth.json and scores.json; stopped, it goes on where it was.

examples:
  python -m vis_jax.main evaluate --workdir runs/shapes --output runs/shapes/test \\
      --config.test.split=test
  python -m vis_jax.main evaluate --config configs/ifr_r50.py --checkpoint r50 \\
      --config.data.root=/data/ytvis2019 --output out
"""

import hashlib
import json
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from absl import flags
from etils import epath

from vis_jax.commands import parts
from vis_jax.commands.config_flag import define_config, read_config
from vis_jax.metrics.disk import naming
from vis_jax.settings import to_dict

if TYPE_CHECKING:
    from data_pipeline.datasets.head import Head
    from vis_jax.commands.run_settings import RunSettings
    from vis_jax.systems.system import System


def define(values: flags.FlagValues, arguments: list[str]) -> None:
    """Adds the flags of this command."""
    define_config(values, arguments)
    texts = {
        "workdir": "folder of a training run; gives config and checkpoint",
        "checkpoint": "folder of a checkpoint; default: the newest of --workdir",
        "output": "folder for results.json, truth.json, scores.json;"
        " default: evaluation/<split> in --workdir",
    }
    for name, text in texts.items():
        flags.DEFINE_string(name, None, text, flag_values=values)


def run(values: flags.FlagValues) -> None:
    """Evaluates."""
    from vis_jax.commands.saved_model import make_model

    config = read_config(values)
    checkpoint = values.checkpoint or values.workdir
    if not checkpoint:
        raise ValueError("--checkpoint: expected a checkpoint or --workdir, got none")
    if not (values.output or values.workdir):
        raise ValueError("--output: expected a folder for the results, got none")
    parts.keep_compilations(values.workdir)
    dataset = open_split(config)
    classes = [(one.category_id, one.name) for one in dataset.categories]
    model = make_model(config, classes, checkpoint)
    folder = epath.Path(values.workdir or "") / "evaluation" / config.test.split
    output = epath.Path(values.output) if values.output else folder
    evaluate_split(model.config, model.system, model.variables, dataset, output)


def open_split(config: "RunSettings") -> "Head":
    """The videos that `config.test` names.

    Raises:
      ValueError: there are none.
    """
    from data_pipeline.datasets import make_dataset
    from data_pipeline.datasets.head import Head

    return Head(make_dataset(config.data, config.test.split), config.test.videos)


def evaluate_split(
    config: "RunSettings",
    system: "System",
    variables: dict,
    dataset: "Head",
    output: epath.Path,
) -> dict:
    """Scores a system on a data set, and prints the table.

    Args:
      config: of the run; `test` has the settings of inference.
      system: as `parts.build_system` makes it.
      variables: NumPy arrays.
      dataset: as `open_split` finds it.
      output: folder to write to.
    """
    from vis_jax.evaluate.infer import make_stream
    from vis_jax.evaluate.loop import RESULTS, SCORES, evaluate
    from vis_jax.scoring import format_table

    stream = make_stream(system, variables, config.test)
    with local_folder(output) as folder:
        report = evaluate(
            dataset,
            stream,
            folder,
            top=config.test.top,
            run_id=fingerprint(config, variables),
            progress=sys.stderr.isatty(),
        )
    print(format_table({k: v for k, v in report.items() if k != "videos"}))
    print(f"results       {output / RESULTS}\nscores        {output / SCORES}")
    return report


@contextmanager
def local_folder(output: epath.Path) -> Iterator[Path]:
    """The folder itself, or for a bucket (gs://..) a local one, copied at the end."""
    if "://" not in str(output):
        yield Path(output)
        return
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)
        output.mkdir(parents=True, exist_ok=True)
        for file in Path(name).iterdir():
            with naming(output / file.name):
                (output / file.name).write_bytes(file.read_bytes())


def fingerprint(config: Any, variables: dict) -> str:
    """A digest of all that predictions depend on: settings and every parameter.

    The name of a checkpoint would not do: training goes on under the same name.
    """
    from vis_jax.params import flatten

    digest = hashlib.sha256(json.dumps(to_dict(config), sort_keys=True).encode())
    for path, leaf in sorted(flatten(variables).items()):
        array = np.ascontiguousarray(leaf)
        digest.update(f"{path} {array.dtype} {array.shape}".encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
