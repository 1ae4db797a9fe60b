"""Trains a system and evaluates it at the end; run again, it resumes.

examples:
  python -m vis_jax.main --config configs/ifr_shapes.py --workdir runs/shapes
  python -m vis_jax.main --config configs/ifr_r50.py:dataset=ovis \\
      --workdir runs/ovis --config.data.root=/data/ovis --config.data.batch_size=8
"""

import functools
import importlib
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from absl import flags
from etils import epath

from vis_jax.commands import parts
from vis_jax.commands.config_flag import define_config, read_config
from vis_jax.commands.dry_run import dry_run
from vis_jax.commands.evaluate import evaluate_split, open_split
from vis_jax.commands.train_checks import check_settings, training_system

if TYPE_CHECKING:
    from data_pipeline.datasets.dataset import Dataset
    from data_pipeline.datasets.first_videos import FirstVideos
    from vis_jax.commands.run_settings import RunSettings
    from vis_jax.systems.system import System
    from vis_jax.training.evaluations import Evaluation
    from vis_jax.training.features import StoredFeatures
    from vis_jax.training.profile import ProfileWindow

COMPILE_SECONDS = 600  # default of --compile_seconds


def define(values: flags.FlagValues, arguments: list[str]) -> None:
    """Adds the flags of this command."""
    define_config(values, arguments)
    flags.DEFINE_string(
        "workdir",
        None,
        "folder of the run: config, categories, checkpoints, metrics, evaluation",
        flag_values=values,
    )
    flags.DEFINE_bool(
        "accept_changes",
        False,
        "resume although settings differ from those of the run in --workdir, so that"
        " the result differs from an uninterrupted run; prints each difference",
        flag_values=values,
    )
    flags.DEFINE_bool(
        "dry_run",
        False,
        "print parameters, FLOPs, memory, epochs and the shapes of a batch, and exit;"
        " needs no --workdir, and data only if they set the number of classes",
        flag_values=values,
    )
    flags.DEFINE_string(
        "mesh",
        None,
        "with --dry_run: axis sizes of a mesh of simulated devices, such as"
        " data=64,fsdp=8; prints memory, communication and minimum time of an update"
        " per device",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "compile_seconds",
        None,
        f"with --mesh: time limit for compiling, {COMPILE_SECONDS} by default; after"
        " it, or at once with 0, prints the estimates that need no compilation",
        lower_bound=0,
        flag_values=values,
    )
    flags.DEFINE_list(
        "profile",
        None,
        "first,last update to profile, such as 10,20; writes the trace to profile/ in"
        " --workdir, for TensorBoard or Perfetto",
        flag_values=values,
    )


def run(values: flags.FlagValues) -> None:
    """Trains, or prints an estimate with --dry_run."""
    seconds = values.compile_seconds
    if seconds is not None and values.mesh is None:
        raise ValueError(
            f"--compile_seconds: expected --mesh beside it, got {seconds} alone"
        )
    if values.dry_run:
        config = read_config(values)
        seconds = COMPILE_SECONDS if seconds is None else seconds
        dry_run(config, mesh=values.mesh, seconds=seconds)
        return
    if values.mesh is not None:
        raise ValueError(
            "--mesh: expected --dry_run beside it; a run has --config.mesh.fsdp"
        )
    if not values.workdir:
        raise ValueError("--workdir: expected a folder for the run, got none")
    config = read_config(values)
    train_config(
        config,
        values.workdir,
        window=_window(values.profile, config.num_steps),
        accept_changes=values.accept_changes,
    )


def _window(updates: list[str] | None, num_steps: int) -> "ProfileWindow | None":
    """Returns the updates to profile.

    Raises:
      ValueError: not two ascending numbers, or the run ends before them.
    """
    from vis_jax.training.profile import ProfileWindow

    if updates is None:
        return None
    numbers = [int(text) for text in updates if text.strip().isdecimal()]
    if len(numbers) != 2 or len(updates) != 2 or not 1 <= numbers[0] <= numbers[1]:
        got = ",".join(updates)
        raise ValueError(f"--profile: expected first,last such as 10,20, got {got}")
    if numbers[0] > num_steps:
        raise ValueError(
            f"--profile: expected updates of the run, which has {num_steps}, got"
            f" {numbers[0]},{numbers[1]}"
        )
    return ProfileWindow(*numbers)


def train_config(
    config: "RunSettings",
    workdir: str,
    *,
    window: "ProfileWindow | None" = None,
    accept_changes: bool = False,
) -> None:
    """Trains and evaluates a config in a folder.

    Raises:
      ValueError: see `vis_jax.training.loop.train`; or classes of data sets differ.
    """
    import jax

    from vis_jax.training.devices import device_line
    from vis_jax.training.distributed import initialise_distributed
    from vis_jax.training.together import telling_others

    initialise_distributed()
    if jax.process_index() == 0:
        print(device_line(), flush=True)
    parts.keep_compilations(workdir)
    with telling_others():
        _train(config, workdir, window=window, accept_changes=accept_changes)
    if jax.process_index() == 0:
        print(f"checkpoint    {workdir}")


def _train(
    config: "RunSettings",
    workdir: str,
    *,
    window: "ProfileWindow | None",
    accept_changes: bool,
) -> None:
    """Does the work of `train_config`, in one of the processes of the run."""
    import jax

    check_settings(config, workdir, accept_changes=accept_changes)
    from vis_jax.commands.run_settings import with_classes
    from vis_jax.evaluate.pictures import make_pictures
    from vis_jax.training.loop import train

    start, first = time.monotonic(), jax.process_index() == 0
    dataset = _open_data(config, say=first)
    config = with_classes(config, len(dataset.categories))
    # Opened before training, so that errors in their settings are raised now.
    evaluations = evaluations_of(config, dataset.categories, workdir)
    if first:
        print(data_line(dataset, time.monotonic() - start), flush=True)
    system = training_system(config)
    features = stored_features(config, system, dataset)
    if (epath.Path(workdir) / parts.CATEGORIES_FILE).exists():
        parts.write_categories(workdir, dataset.categories)  # only compares

    def make_batches(start_step: int) -> Iterator[dict[str, np.ndarray]]:
        if jax.process_index() == 0:  # by now the workdir is known to be this run's
            parts.write_categories(workdir, dataset.categories)
        return batches(dataset, config, start_step, features)

    def check(variables: dict) -> None:
        if features is not None:
            features.check_encoder(variables["params"], config.optimizer)

    train(
        config,
        system,
        make_batches,
        workdir,
        evaluations=evaluations,
        draw=make_pictures(system, [one.name for one in dataset.categories]),
        window=window,
        accept_changes=accept_changes,
        check=check,
    )


def _open_data(config: "RunSettings", *, say: bool) -> "Dataset":
    """Opens the training data; prints a line before and, if they are joint, after."""
    from data_pipeline.datasets.by_name import make_training_set
    from data_pipeline.datasets.joint import JointClips
    from data_pipeline.datasets.joint_videos import JointVideos

    if say:
        print(f"data          opening {config.data.name} ..", flush=True)
    dataset = make_training_set(config.data)
    if say and isinstance(dataset, JointClips):
        print(f"images        {dataset.summary()}")
    if say and isinstance(dataset, JointVideos):
        print(f"videos        {dataset.summary()}")
    return dataset


def stored_features(
    config: "RunSettings", system: "System", dataset: "Dataset"
) -> "StoredFeatures | None":
    """Opens `data.features`; None if there are none.

    Raises:
      ValueError: they are incomplete, or of other settings, videos or systems.
    """
    from vis_jax.paths import on_disk
    from vis_jax.training.features import StoredFeatures

    folder = config.data.features
    if not folder:
        return None
    encoder, path = parts.frozen_encoder(system), on_disk("data.features", folder)
    found = StoredFeatures(path, encoder, config.data, dataset.videos)
    found.check_settings()
    found.check_complete()
    return found


def data_line(dataset: "Dataset", seconds: float) -> str:
    """Formats "data          1,000 videos, 8 classes: opened in 0.1 s"."""
    videos, classes = len(dataset.videos), len(dataset.categories)
    return (
        f"data          {videos:,} videos, {classes} classes: opened in {seconds:.1f} s"
    )


def evaluations_of(
    config: "RunSettings", categories: Sequence, workdir: str
) -> list["Evaluation"]:
    """Returns the evaluation on `test`, then those of `evals`.

    Args:
      config: config of the run.
      categories: categories of the training data.
      workdir: results go to its folder `evaluation`.

    Raises:
      ValueError: an evaluation has no videos, or other categories.
    """
    from vis_jax.commands.run_settings import of_evaluation
    from vis_jax.scoring import METRICS
    from vis_jax.training.evaluations import Evaluation

    runs = {"": (config, config.train.eval_every)}
    for name, one in config.evals.items():
        runs[name] = (of_evaluation(config, name), one.every)
    out = []
    for name, (run, every) in runs.items():
        tested = open_split(run)
        found = [(one.category_id, one.name) for one in tested.categories]
        where = f"evals.{name}" if name else "test.split"
        parts.check_categories(where, found, categories)
        folder = epath.Path(workdir) / "evaluation" / name
        system = parts.build_system(run)
        score = functools.partial(evaluate_at, run, system, tested, folder)
        out.append(Evaluation(name, every, score, METRICS))
    return out


def batches(
    dataset: "Dataset",
    config: "RunSettings",
    start_step: int,
    features: "StoredFeatures | None" = None,
) -> Iterator[dict[str, np.ndarray]]:
    """Yields this process's share of every batch from a step on.

    Args:
      dataset: to train on.
      config: config of the run.
      start_step: the first step.
      features: stored features of the frames, added to each batch.
    """
    import jax

    from data_pipeline.clip_sampling import plan_batches

    loaders = {"tf": "data_pipeline.pipeline", "numpy": "data_pipeline.numpy_pipeline"}
    pipeline = importlib.import_module(loaders[config.data.loader])
    share = dict(
        seed=config.seed,
        start_step=start_step,
        host_index=jax.process_index(),
        host_count=jax.process_count(),
    )
    found: Iterator[dict[str, np.ndarray]]
    found = pipeline.train_batches(dataset, config.data, **share)
    if features is None:
        return found
    return features.joined(found, plan_batches(dataset, config.data, **share))


def evaluate_at(
    config: "RunSettings",
    system: "System",
    dataset: "FirstVideos",
    folder: epath.Path,
    variables: dict,
    step: int,
) -> dict[str, float]:
    """Scores videos, writing files to the subfolder of this step.

    The first process evaluates while the others wait here, as they would time out in
    the next update or at exit.
    """
    import jax

    from vis_jax.evaluate.partial_folder import partial_folder
    from vis_jax.training.distributed import wait_for_all

    numbers = {}
    if jax.process_index() == 0:
        output = folder / f"step_{step}"
        with partial_folder(output) as partial:
            report = evaluate_split(
                config, system, jax.device_get(variables), dataset, partial
            )
        kinds = (int, float)
        numbers = {key: float(v) for key, v in report.items() if isinstance(v, kinds)}
    wait_for_all(f"evaluated at step {step} in {folder}")
    return numbers
