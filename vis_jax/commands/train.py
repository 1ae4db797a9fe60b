"""Trains a system and evaluates it at the end; started again, it goes on.

examples:
  python -m vis_jax.main --config configs/ifr_shapes.py --workdir runs/shapes
  python -m vis_jax.main --config configs/ifr_r50.py:dataset=ovis \\
      --workdir runs/ovis --config.data.root=/data/ovis --config.data.batch_size=8
"""

import functools
import importlib
from collections.abc import Iterator

import numpy as np
from absl import flags
from etils import epath
from ml_collections import ConfigDict

from vis_jax.commands import settings
from vis_jax.commands.config_flag import define_config, read_config
from vis_jax.commands.dry_run import dry_run
from vis_jax.commands.evaluate import evaluate_split, open_split


def define(values: flags.FlagValues, arguments: list[str]) -> None:
    """Adds the flags of this command."""
    define_config(values, arguments)
    flags.DEFINE_string(
        "workdir",
        None,
        "folder of the run: config, categories, checkpoints, TensorBoard, evaluation",
        flag_values=values,
    )
    flags.DEFINE_bool(
        "dry_run",
        False,
        "print parameters, FLOPs, memory, epochs and the shapes of a batch, and end;"
        " without --workdir, and without data unless they set the number of classes",
        flag_values=values,
    )


def run(values: flags.FlagValues) -> None:
    """Trains, or says what that would take."""
    if values.dry_run:
        dry_run(read_config(values))
        return
    if not values.workdir:
        raise ValueError("--workdir: expected a folder for the run, got none")
    train_config(read_config(values), values.workdir)


def train_config(config: ConfigDict, workdir: str) -> None:
    """Trains what a config describes in a folder."""
    import jax

    from data_pipeline.datasets import make_training_set
    from data_pipeline.datasets.joint import JointClips
    from vis_jax.evaluate.pictures import make_pictures
    from vis_jax.train.distributed import initialise_distributed
    from vis_jax.train.loop import train

    initialise_distributed(config)
    settings.keep_compilations(workdir)
    dataset = make_training_set(config.data)
    if isinstance(dataset, JointClips) and jax.process_index() == 0:
        print(f"images        {dataset.summary()}")
    settings.set_classes(config, len(dataset.categories))
    tested = open_split(config)  # what is wrong with it is known before the training
    found = [(one.category_id, one.name) for one in tested.categories]
    settings.check_categories("test.split", found, dataset.categories)
    system = settings.build_system(config)
    if jax.process_index() == 0:
        settings.write_categories(workdir, dataset.categories)
    train(
        config,
        system,
        functools.partial(batches, dataset, config),
        workdir,
        evaluate=functools.partial(evaluate_at, config, system, tested, workdir),
        draw=make_pictures(system, [one.name for one in dataset.categories]),
    )
    if jax.process_index() == 0:
        print(f"checkpoint    {workdir}")


def batches(
    dataset, config: ConfigDict, start_step: int
) -> Iterator[dict[str, np.ndarray]]:
    """This process's share of every batch from a step on."""
    import jax

    loaders = {"tf": "data_pipeline.pipeline", "numpy": "data_pipeline.numpy_pipeline"}
    loader = config.data.loader
    if loader not in loaders:
        known = sorted(loaders)
        raise ValueError(f"data.loader: expected one of {known}, got {loader!r}")
    pipeline = importlib.import_module(loaders[loader])
    return pipeline.train_batches(
        dataset,
        config.data,
        seed=config.seed,
        start_step=start_step,
        host_index=jax.process_index(),
        host_count=jax.process_count(),
    )


def evaluate_at(
    config: ConfigDict, system, dataset, workdir: str, variables: dict, step: int
) -> dict[str, float]:
    """Scores the test split; the files go to a folder of this step.

    Every process has all parameters, and the first one evaluates while the others wait:
    in the next update, or when leaving, they would not wait for long enough.
    """
    import jax

    from vis_jax.train.distributed import wait_for_all

    numbers = {}
    if jax.process_index() == 0:
        output = epath.Path(workdir) / "evaluation" / f"step_{step}"
        report = evaluate_split(
            config, system, jax.device_get(variables), dataset, output
        )
        kinds = (int, float)
        numbers = {key: float(v) for key, v in report.items() if isinstance(v, kinds)}
    wait_for_all(f"evaluated at step {step}")
    return numbers
