"""Settings of the training loop, and the config.json of a run."""

import json
from typing import Annotated, Any, Literal

import jax
from etils import epath

from vis_jax.paths import write_atomically
from vis_jax.settings import CONFIG_FILE, Count, Natural, Range, section, to_dict
from vis_jax.training.optimizer import AdamW, Settings
from vis_jax.training.sharding import MeshSettings


@section
class TrainSettings:
    """`train`: microbatches, averaging, logging, checkpoints and evaluation."""

    # Number of microbatches of a batch, computed one after the other; must divide the
    # clips of each device. Losses that are divided by the number of objects use that of
    # the microbatch.
    accumulate: Count = 1
    # Decay per update of the exponential moving average of the weights, such as 0.9998.
    # Evaluation and loading use the average. 0 = no average.
    ema: Annotated[float, Range(least=0, below=1)] = 0.0

    log_every: Count = 20  # updates between lines of progress
    checkpoint_every: Count = 500  # updates between checkpoints, for resuming
    keep: Count = 3  # number of checkpoints to keep, the newest ones
    image_every: Natural = 1_000  # updates between images for the loggers; 0 = never
    # Updates between evaluations on `test`; 0 = at the end only.
    eval_every: Natural = 0
    # The checkpoint with the highest value of this metric is kept in best/: AP, for
    # example, of the evaluation on `test`, NAME/AP of evals.NAME; "" = none is kept.
    best: str = ""
    # Loggers of metrics and images besides metrics.jsonl; wandb and trackio must be
    # installed.
    loggers: tuple[Literal["tensorboard", "wandb", "trackio"], ...] = ("tensorboard",)
    project: str = "vis_jax"  # name of the project in wandb and trackio


@section
class LoopSettings:
    """The part of a config that the training loop reads."""

    seed: Natural = 0  # random seed of parameters, clips and noise
    num_steps: Count  # number of updates of the run
    init_from: str = ""  # checkpoint to start from; "" = random parameters
    # Regexes for the paths of parameters that are not loaded from `init_from`.
    init_fresh: tuple[str, ...] = ()
    optimizer: Settings = AdamW()
    train: TrainSettings = TrainSettings()
    mesh: MeshSettings = MeshSettings()


def write_config(config: Any, workdir: str) -> None:
    """Writes settings as `workdir/config.json`, atomically, in process 0."""
    if jax.process_index() > 0:
        return
    text = json.dumps(to_dict(config), indent=2) + "\n"
    write_atomically(epath.Path(workdir) / CONFIG_FILE, text)
