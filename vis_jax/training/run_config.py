"""Settings of the training loop, and the config.json of a run."""

import json
from typing import Annotated, Any, Literal

import jax
from etils import epath

from vis_jax.settings import CONFIG_FILE, Count, Natural, Range, section, to_dict
from vis_jax.training.optimizer import AdamW, Settings
from vis_jax.training.sharding import MeshSettings


@section
class TrainSettings:
    """`train`: how an update is made, and what happens when; numbers are updates."""

    # Microbatches that a batch is computed in, one after the other; divides the clips
    # of each device. A loss that divides by a number of objects divides by that of a
    # microbatch.
    accumulate: Count = 1
    # Share that a moving average of the weights keeps of itself in an update, such as
    # 0.9998; the average is what is evaluated and loaded. 0 = none is kept.
    ema: Annotated[float, Range(least=0, below=1)] = 0.0

    log_every: Count = 20  # a line of progress
    checkpoint_every: Count = 500  # the state, from which a run goes on
    keep: Count = 3  # checkpoints, the newest
    image_every: Natural = 1_000  # pictures for TensorBoard; 0 = never
    eval_every: Natural = 0  # evaluation on `test`; 0 = at the end only
    # Metric of an evaluation whose best checkpoint is kept in best/, the higher the
    # better: AP for that on `test`, NAME/AP for evals.NAME; "" = none is kept.
    best: str = ""
    # Where numbers and pictures go besides metrics.jsonl; wandb and trackio are
    # packages to install.
    loggers: tuple[Literal["tensorboard", "wandb", "trackio"], ...] = ("tensorboard",)
    project: str = "vis_jax"  # of wandb and trackio


@section
class RunSettings:
    """All that the loop reads of a config."""

    seed: Natural = 0  # of parameters, clips and noise
    num_steps: Count  # updates of the run
    init_from: str = ""  # checkpoint to start from; "" = random parameters
    # Regexes over paths of parameters that are not taken from `init_from`.
    init_fresh: tuple[str, ...] = ()
    optimizer: Settings = AdamW()
    train: TrainSettings = TrainSettings()
    mesh: MeshSettings = MeshSettings()


def write_config(config: Any, workdir: str) -> None:
    """Writes settings as `workdir/config.json`, atomically, in process 0."""
    if jax.process_index() > 0:
        return
    folder = epath.Path(workdir)
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f"{CONFIG_FILE}.tmp"
    temporary.write_text(json.dumps(to_dict(config), indent=2) + "\n")
    temporary.replace(folder / CONFIG_FILE)
