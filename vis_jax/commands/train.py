"""Trains a system and evaluates it at the end; started again, it goes on.

examples:
  python -m vis_jax.main --config configs/ifr_shapes.py --workdir runs/shapes
  python -m vis_jax.main --config configs/ifr_r50.py:dataset=ovis \\
      --workdir runs/ovis --config.data.root=/data/ovis --config.data.batch_size=8
"""

import functools
import importlib
from pathlib import Path

from absl import flags
from ml_collections import ConfigDict

from vis_jax.commands import settings
from vis_jax.commands.evaluate import evaluate_split


def define(values: flags.FlagValues, arguments: list[str]) -> None:
    """Adds the flags of this command."""
    settings.define_config(values, arguments)
    flags.DEFINE_string(
        "workdir",
        None,
        "folder of the run: config, categories, checkpoints, TensorBoard, evaluation",
        flag_values=values,
    )


def run(values: flags.FlagValues, words: list[str]) -> None:
    """Trains."""
    config = settings.read_config(values)
    if not values.workdir:
        raise ValueError("--workdir: expected a folder for the run, got none")
    train_config(config, Path(values.workdir))


def train_config(config: ConfigDict, workdir: Path) -> None:
    """Trains what a config describes in a folder."""
    import jax

    from data_pipeline.datasets import make_dataset
    from vis_jax.evaluate.pictures import make_pictures
    from vis_jax.train.distributed import initialise_distributed
    from vis_jax.train.loop import train

    initialise_distributed(config)
    dataset = make_dataset(config.data, "train")
    settings.set_classes(config, len(dataset.categories))
    system = settings.build_system(config)
    if jax.process_index() == 0:
        path = workdir / settings.CATEGORIES_FILE
        settings.write_categories(path, dataset.categories)
    train(
        config,
        system,
        functools.partial(batches, dataset, config),
        str(workdir),
        evaluate=functools.partial(evaluate_at, config, system, workdir),
        draw=make_pictures(system, [one.name for one in dataset.categories]),
    )
    print(f"checkpoint    {workdir}")


def batches(dataset, config: ConfigDict, start_step: int):
    """This process's share of every batch from a step on."""
    import jax

    loaders = {"tf": "data_pipeline.pipeline", "numpy": "data_pipeline.numpy_pipeline"}
    if config.data.loader not in loaders:
        raise ValueError(
            f"data.loader: expected one of {sorted(loaders)}, got {config.data.loader!r}"
        )
    pipeline = importlib.import_module(loaders[config.data.loader])
    return pipeline.train_batches(
        dataset,
        config.data,
        seed=config.seed,
        start_step=start_step,
        host_index=jax.process_index(),
        host_count=jax.process_count(),
    )


def evaluate_at(config, system, workdir: Path, variables: dict, step: int) -> dict:
    """Scores the test split; the files go to a folder of this step."""
    import jax

    # Every process has all parameters; one of them is enough to evaluate.
    if jax.process_index() != 0:
        return {}
    output = workdir / "evaluation" / f"step_{step}"
    report = evaluate_split(
        config, system, jax.device_get(variables), output, run_id=f"step {step}"
    )
    numbers = (int, float)
    return {key: float(v) for key, v in report.items() if isinstance(v, numbers)}
